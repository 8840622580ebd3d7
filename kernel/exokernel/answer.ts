/** What a call answers: a value, or a refusal that names the argument at fault. */
import { Status } from '../abi.ts';
import type { State } from './state.ts';

export interface Answer {
  readonly status: number;
  readonly value: number;
}

export const ok = (value = 0): Answer => ({ status: Status.ok, value });

/** Refuses; nothing may have been written before. @param argument its index, from 0 */
export const refuse = (status: number, argument: number): Answer => ({ status, value: argument });

/** The arguments of a call, as the caller left them: claims, any number whatever. */
export type Claims = (index: number) => number;

/** One kernel call: decode, check, commit. `null`: the answer comes later (the caller waits). */
export type KernelCall = (state: State, caller: number, claim: Claims) => Answer | null;
