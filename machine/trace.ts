/**
 * Typed trace events: what the machine tells a listener, free when nobody listens. A listener sees
 * every charge with the cycles it cost; who wants the source line takes a stack trace there.
 */

export type TraceEvent =
  | { readonly what: 'trap'; readonly cause: number; readonly level: number; readonly tval: number }
  | { readonly what: 'return'; readonly level: number }
  | { readonly what: 'charge'; readonly why: Charge; readonly cycles: number }
  | { readonly what: 'upcall'; readonly context: number; readonly entry: number }
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
