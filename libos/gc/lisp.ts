/**
 * A small Lisp whose every value lives in simulated memory: the explicit-control evaluator of
 * Abelson and Sussman ("Structure and Interpretation of Computer Programs", section 5.4), with its
 * registers and its stack in memory too. So the collector finds every root by looking, and a value
 * that stands in a variable of ours must not be used across an allocation.
 *
 * Lexical scope by association lists, proper tail calls, integers of 30 bits. Forms: quote, if,
 * cond, lambda, let, define, set!, begin. It trusts its collector; programs are its own user's.
 */
import type { Op, UserPort } from '../syscalls.ts';
import type { Collector } from './collector.ts';
import {
  addressOf,
  FALSE,
  GLOBALS,
  GLOBALS_MAX,
  integer,
  integerOf,
  isInteger,
  isPair,
  isPrimitive,
  isProcedure,
  isSymbol,
  NIL,
  primitive,
  primitiveOf,
  PROCEDURE,
  register,
  STACK,
  STACK_END,
  symbol,
  symbolId,
  TRUE,
} from './layout.ts';

const [EXP, ENV, VAL, ARGL, UNEV, HEAD, TAIL] = [0, 1, 2, 3, 4, 5, 6].map(register) as [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
];
const CAR = 0;
const CDR = 4;
const STEP = 4; // cycles of deciding what comes next, beside the words that are looked at

/** Where a value is returned to: small integers on the stack. */
const Return = { done: 0, argument: 1, choose: 2, sequence: 3, assign: 4, define: 5 } as const;
const FORMS = ['quote', 'if', 'lambda', 'define', 'set!', 'begin'] as const;
const PRIMITIVES = [
  'cons', 'car', 'cdr', 'set-car!', 'set-cdr!', 'null?', 'pair?', 'eq?', 'not',
  '+', '-', '*', 'quotient', 'remainder', '<', '=',
] as const; // prettier-ignore
type Primitive = (typeof PRIMITIVES)[number];

/** A program as it is read, before it is in the heap. */
type Datum = number | string | readonly Datum[];

export class LispError extends Error {
  override readonly name = 'LispError';
}

export class Lisp {
  readonly #port: UserPort;
  readonly #collector: Collector;
  readonly #names: string[] = []; // by symbol number: what the reader made of them
  #stack = STACK; // address past the last word: the stack pointer

  constructor(port: UserPort, make: (roots: Lisp['roots']) => Collector) {
    this.#port = port;
    this.#collector = make(() => this.roots());
    for (const form of FORMS) this.#symbol(form);
  }

  get collector(): Collector {
    return this.#collector;
  }

  roots(): { readonly globals: number; readonly stack: number } {
    return { globals: this.#names.length, stack: this.#stack };
  }

  /** Binds the names of the language. Once, before the first program. */
  *begin(): Op<void> {
    for (let n = 0; n < GLOBALS_MAX; n++) yield* this.#port.store(GLOBALS + n * 4, 0);
    for (const [n, name] of PRIMITIVES.entries()) {
      yield* this.#port.store(GLOBALS + symbolId(this.#symbol(name)) * 4, primitive(n));
    }
    for (const [name, word] of [
      ['nil', NIL],
      ['true', TRUE],
      ['false', FALSE],
    ] as const) {
      yield* this.#port.store(GLOBALS + symbolId(this.#symbol(name)) * 4, word);
    }
  }

  /** Evaluates each expression of a text; what the last one is, as text. */
  *run(text: string): Op<string> {
    for (const datum of parse(text)) {
      yield* this.#build(rewrite(datum));
      yield* this.#port.store(EXP, yield* this.#pop());
      yield* this.#port.store(ENV, NIL);
      yield* this.#evaluate();
    }
    return yield* this.#show(yield* this.#port.load(VAL));
  }

  // ---- memory -----------------------------------------------------------------------------------

  #symbol(name: string): number {
    let id = this.#names.indexOf(name);
    if (id < 0) id = this.#names.push(name) - 1;
    if (id >= GLOBALS_MAX) throw new LispError(`more than ${GLOBALS_MAX} names`);
    return symbol(id);
  }

  *#push(word: number): Op<void> {
    if (this.#stack === STACK_END) throw new LispError('the stack is full');
    yield* this.#port.store(this.#stack, word);
    this.#stack += 4; // after the store: what is not written is no root
  }

  *#pop(): Op<number> {
    if (this.#stack === STACK) throw new LispError('the stack is empty');
    const word = yield* this.#port.load(this.#stack - 4);
    this.#stack -= 4;
    return word;
  }

  *#field(word: number, field: number): Op<number> {
    if (!isPair(word)) throw new LispError(`no pair: ${this.#name(word)}`);
    return yield* this.#port.load(word + field);
  }

  /** A new pair of what stands in the registers HEAD and TAIL. */
  *#cons(): Op<number> {
    const pair = yield* this.#collector.allocate();
    yield* this.#port.store(pair + CAR, yield* this.#port.load(HEAD));
    yield* this.#port.store(pair + CDR, yield* this.#port.load(TAIL));
    return pair;
  }

  *#set(at: number, word: number): Op<void> {
    yield* this.#port.store(at, word);
  }

  /** Pushes what a datum is in the heap. */
  *#build(datum: Datum): Op<void> {
    if (typeof datum === 'number') return yield* this.#push(integer(datum));
    if (typeof datum === 'string') return yield* this.#push(this.#symbol(datum));
    yield* this.#push(NIL);
    for (const part of [...datum].reverse()) {
      yield* this.#build(part);
      yield* this.#set(HEAD, yield* this.#pop());
      yield* this.#set(TAIL, yield* this.#pop());
      yield* this.#push(yield* this.#cons());
    }
  }

  // ---- evaluation -------------------------------------------------------------------------------

  /** Evaluates EXP in ENV, to VAL. */
  *#evaluate(): Op<void> {
    const port = this.#port;
    yield* this.#push(integer(Return.done));
    for (;;) {
      port.work(STEP) ?? (yield* port.fault());
      const exp = yield* port.load(EXP);
      if (isPair(exp)) {
        const head = yield* this.#field(exp, CAR);
        const form = isSymbol(head) ? FORMS[symbolId(head)] : undefined;
        if (form === undefined) {
          yield* this.#operands(exp, NIL);
          continue;
        }
        const rest = yield* this.#field(exp, CDR);
        if (!(yield* this.#form(form, rest))) continue;
      } else {
        yield* this.#set(VAL, isSymbol(exp) ? yield* this.#lookUp(exp) : exp);
      }
      // A value stands in VAL: to whom it goes is on the stack.
      for (;;) {
        const to = integerOf(yield* this.#pop());
        if (to === Return.done) return;
        if (!(yield* this.#returned(to))) break;
      }
    }
  }

  /** A special form, from its operands on. True: VAL is its value; false: EXP comes next. */
  *#form(form: (typeof FORMS)[number], rest: number): Op<boolean> {
    switch (form) {
      case 'quote':
        yield* this.#set(VAL, yield* this.#field(rest, CAR));
        return true;
      case 'lambda':
        yield* this.#set(HEAD, rest);
        yield* this.#set(TAIL, yield* this.#port.load(ENV));
        yield* this.#set(VAL, (yield* this.#cons()) + PROCEDURE);
        return true;
      case 'if':
        yield* this.#later(Return.choose, yield* this.#field(rest, CDR));
        yield* this.#set(EXP, yield* this.#field(rest, CAR));
        return false;
      case 'begin':
        yield* this.#sequence(rest);
        return false;
      default: {
        const name = yield* this.#field(rest, CAR);
        yield* this.#later(form === 'define' ? Return.define : Return.assign, name);
        yield* this.#set(EXP, yield* this.#field(yield* this.#field(rest, CDR), CAR));
        return false;
      }
    }
  }

  /** Puts ENV, a word and a place to return to on the stack. */
  *#later(to: number, word: number): Op<void> {
    yield* this.#push(yield* this.#port.load(ENV));
    yield* this.#push(word);
    yield* this.#push(integer(to));
  }

  /** The last of a sequence is evaluated in place of it. */
  *#sequence(list: number): Op<void> {
    const rest = yield* this.#field(list, CDR);
    if (rest !== NIL) yield* this.#later(Return.sequence, rest);
    yield* this.#set(EXP, yield* this.#field(list, CAR));
  }

  /** The next of the operands, the operator among them; those that are done are in `done`. */
  *#operands(list: number, done: number): Op<void> {
    yield* this.#push(done);
    yield* this.#later(Return.argument, yield* this.#field(list, CDR));
    yield* this.#set(EXP, yield* this.#field(list, CAR));
  }

  /** VAL goes to whom it was for. True: VAL is a value again; false: EXP is to be evaluated. */
  *#returned(to: number): Op<boolean> {
    const port = this.#port;
    const word = yield* this.#pop();
    yield* this.#set(ENV, yield* this.#pop());
    switch (to) {
      case Return.choose: {
        const no = (yield* port.load(VAL)) === FALSE;
        const branch = no ? yield* this.#field(word, CDR) : word;
        yield* this.#set(EXP, branch === NIL ? NIL : yield* this.#field(branch, CAR));
        return false;
      }
      case Return.sequence:
        yield* this.#sequence(word);
        return false;
      case Return.define:
        if (!isSymbol(word)) throw new LispError('define takes a name');
        yield* this.#set(GLOBALS + symbolId(word) * 4, yield* port.load(VAL));
        yield* this.#set(VAL, word);
        return true;
      case Return.assign:
        yield* this.#set(yield* this.#place(word), yield* port.load(VAL));
        return true;
      default: {
        yield* this.#set(UNEV, word);
        yield* this.#set(HEAD, yield* port.load(VAL));
        yield* this.#set(TAIL, yield* this.#pop());
        const done = yield* this.#cons();
        const left = yield* port.load(UNEV);
        if (left !== NIL) {
          yield* this.#operands(left, done);
          return false;
        }
        yield* this.#set(ARGL, done);
        return yield* this.#apply();
      }
    }
  }

  /** Applies what is last in ARGL to what is before it, the last operand first. */
  *#apply(): Op<boolean> {
    const port = this.#port;
    const operands: number[] = []; // for a primitive, which allocates last
    let at = yield* port.load(ARGL);
    for (;;) {
      const rest = yield* this.#field(at, CDR);
      if (rest === NIL) break;
      operands.unshift(yield* this.#field(at, CAR));
      at = rest;
    }
    const operator = yield* this.#field(at, CAR);
    if (isPrimitive(operator)) {
      const name = PRIMITIVES[primitiveOf(operator)];
      if (name === undefined) throw new LispError('no such primitive');
      yield* this.#set(VAL, yield* this.#primitive(name, operands));
      return true;
    }
    if (!isProcedure(operator)) throw new LispError(`no procedure: ${this.#name(operator)}`);
    const pair = addressOf(operator);
    yield* this.#set(UNEV, yield* this.#field(pair, CAR)); // parameters, the last first, and body
    yield* this.#set(ENV, yield* this.#field(pair, CDR));
    let left = yield* this.#field(yield* port.load(UNEV), CAR);
    for (let n = operands.length; n > 0; n--) {
      if (left === NIL) throw new LispError('too many operands');
      const argl = yield* port.load(ARGL);
      yield* this.#set(HEAD, yield* this.#field(left, CAR));
      yield* this.#set(TAIL, yield* this.#field(argl, CAR));
      yield* this.#set(ARGL, yield* this.#field(argl, CDR));
      // Of the parameters, what is left is found again after each pair: it may have moved.
      yield* this.#push(yield* this.#field(left, CDR));
      yield* this.#set(HEAD, yield* this.#cons());
      yield* this.#set(TAIL, yield* port.load(ENV));
      yield* this.#set(ENV, yield* this.#cons());
      left = yield* this.#pop();
    }
    if (left !== NIL) throw new LispError('too few operands');
    yield* this.#sequence(yield* this.#field(yield* port.load(UNEV), CDR));
    return false;
  }

  *#primitive(name: Primitive, operands: readonly number[]): Op<number> {
    const [a = NIL, b = NIL] = operands;
    const truth = (is: boolean): number => (is ? TRUE : FALSE);
    const number = (word: number): number => {
      if (!isInteger(word)) throw new LispError(`no integer: ${this.#name(word)}`);
      return integerOf(word);
    };
    switch (name) {
      case 'cons':
        yield* this.#set(HEAD, a);
        yield* this.#set(TAIL, b);
        return yield* this.#cons();
      case 'car':
        return yield* this.#field(a, CAR);
      case 'cdr':
        return yield* this.#field(a, CDR);
      case 'set-car!':
      case 'set-cdr!':
        yield* this.#field(a, CAR); // or it is none
        yield* this.#set(a + (name === 'set-car!' ? CAR : CDR), b);
        return b;
      case 'null?':
        return truth(a === NIL);
      case 'pair?':
        return truth(isPair(a));
      case 'eq?':
        return truth(a === b);
      case 'not':
        return truth(a === FALSE);
      case '<':
        return truth(number(a) < number(b));
      case '=':
        return truth(number(a) === number(b));
      case '+':
        return integer(number(a) + number(b));
      case '-':
        return integer(number(a) - number(b));
      case '*':
        return integer(Math.imul(number(a), number(b)));
      default: {
        if (number(b) === 0) throw new LispError('division by zero');
        const quotient = Math.trunc(number(a) / number(b));
        return integer(name === 'quotient' ? quotient : number(a) - quotient * number(b));
      }
    }
  }

  // ---- names ------------------------------------------------------------------------------------

  /** Address of the word that a name stands for here. */
  *#place(name: number): Op<number> {
    const port = this.#port;
    let env = yield* port.load(ENV);
    while (env !== NIL) {
      const binding = port.load32(env + CAR) ?? (yield* port.fault());
      if ((port.load32(binding + CAR) ?? (yield* port.fault())) === name) return binding + CDR;
      env = port.load32(env + CDR) ?? (yield* port.fault());
    }
    return GLOBALS + symbolId(name) * 4;
  }

  *#lookUp(name: number): Op<number> {
    const word = yield* this.#port.load(yield* this.#place(name));
    if (word === 0) throw new LispError(`no such name: ${this.#name(name)}`);
    return word;
  }

  #name(word: number): string {
    if (isSymbol(word)) return this.#names[symbolId(word)] ?? '?';
    if (isInteger(word)) return String(integerOf(word));
    if (word === NIL) return 'nil';
    if (word === TRUE) return 'true';
    if (word === FALSE) return 'false';
    return isPair(word) ? '(...)' : 'procedure';
  }

  *#show(word: number): Op<string> {
    if (!isPair(word)) return this.#name(word);
    const parts: string[] = [];
    let at = word;
    for (; isPair(at); at = yield* this.#field(at, CDR)) {
      parts.push(yield* this.#show(yield* this.#field(at, CAR)));
    }
    return `(${parts.join(' ')}${at === NIL ? '' : ` . ${this.#name(at)}`})`;
  }
}

// ---- reading ------------------------------------------------------------------------------------

/** The expressions of a text. */
function parse(text: string): Datum[] {
  const tokens = text.replace(/;.*/g, '').match(/[()']|[^\s()']+/g) ?? [];
  let at = 0;
  const read = (): Datum => {
    const token = tokens[at++];
    if (token === undefined) throw new LispError('a parenthesis is not closed');
    if (token === ')') throw new LispError('a parenthesis too many');
    if (token === "'") return ['quote', read()];
    if (token !== '(') return /^-?\d+$/.test(token) ? Number(token) : token;
    const list: Datum[] = [];
    while (tokens[at] !== ')') list.push(read());
    at++;
    return list;
  };
  const all: Datum[] = [];
  while (at < tokens.length) all.push(read());
  return all;
}

const isList = (datum: Datum | undefined): datum is readonly Datum[] => Array.isArray(datum);

/** let and cond in terms of lambda and if; parameters the last first, as they are bound. */
function rewrite(datum: Datum): Datum {
  if (!isList(datum)) return datum;
  const [head, first, ...rest] = datum;
  if (head === 'quote') return datum;
  if (head === 'define' && isList(first)) {
    const [name = '', ...parameters] = first;
    return rewrite(['define', name, ['lambda', parameters, ...rest]]);
  }
  if (head === 'lambda' && isList(first)) {
    return ['lambda', [...first].reverse(), ...rest.map(rewrite)];
  }
  if (head === 'let' && isList(first)) {
    const bindings = first.filter(isList);
    const names = bindings.map(([name = '']) => name);
    const values = bindings.map(([, value = 'nil']) => value);
    return rewrite([['lambda', names, ...rest], ...values]);
  }
  if (head === 'cond') {
    return datum
      .slice(1)
      .filter(isList)
      .reduceRight<Datum>((otherwise, [test = 'nil', ...body]) => {
        const then: Datum = ['begin', ...body.map(rewrite)];
        return test === 'else' ? then : ['if', rewrite(test), then, otherwise];
      }, 'nil');
  }
  return datum.map(rewrite);
}
