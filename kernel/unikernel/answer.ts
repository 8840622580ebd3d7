/**
 * What a call answers: a value, or a refusal that names the argument at fault. The tenant is
 * trusted and no authority is asked for: a refusal only ever says that a number names nothing fit.
 */
import { Status } from '../abi.ts';

export interface Answer {
  readonly status: number;
  readonly value: number;
}

export const ok = (value = 0): Answer => ({ status: Status.ok, value });

/** Refuses a call. @param argument its index, from 0 */
export const refuse = (status: number, argument: number): Answer => ({ status, value: argument });

/** The arguments of a call, as the caller left them: claims, any number whatever. */
export type Claims = (index: number) => number;
