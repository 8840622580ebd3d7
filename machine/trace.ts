/**
 * Typed trace events: what the machine tells a listener, free when nobody listens. A listener sees
 * every charge with the cycles it cost; who wants the source line takes a stack trace there.
 */

export type TraceEvent =
  | { readonly what: 'trap'; readonly cause: number; readonly level: number; readonly tval: number }
  | { readonly what: 'return'; readonly level: number }
  | { readonly what: 'charge'; readonly why: Charge; readonly cycles: number }
  | { readonly what: 'upcall'; readonly context: number; readonly entry: number }
  // Of programs, told while their own stack stands: a stack trace there names their source lines.
  | {
      readonly what: 'user-trap';
      readonly context: number;
      readonly cause: number;
      readonly tval: number;
      /** of an ecall: the call's number and its arguments */
      readonly words: readonly number[];
    }
  | { readonly what: 'thrown'; readonly context: number; readonly error: unknown }
  /** a supervisor puts the answer of a call into the registers of a program */
  | {
      readonly what: 'answer';
      readonly context: number;
      readonly status: number;
      readonly value: number;
    }
  | { readonly what: 'exit'; readonly cause: string };

/** What cycles were spent on. */
export type Charge =
  | 'load'
  | 'store'
  | 'pte-read'
  | 'pte-write'
  | 'walk'
  | 'trap-entry'
  | 'trap-return'
  | 'procedure-call'
  | 'csr'
  | 'fence'
  | 'mmio'
  | 'zero-page'
  | 'copy-page'
  | 'user-copy'
  | 'work';

export type Listener = (event: TraceEvent, layer: number, now: number) => void;
