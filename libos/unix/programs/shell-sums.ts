/**
 * The sums of `$((...))`: numbers of 64 bits, names of variables, and C's operators, but for those
 * that assign. Throws SumProblem.
 */

export class SumProblem extends Error {}

/** Left to right within a level; the levels in order of how tightly they bind. */
const LEVELS: readonly Readonly<Record<string, (a: bigint, b: bigint) => bigint | boolean>>[] = [
  { '||': (a, b) => a !== 0n || b !== 0n },
  { '&&': (a, b) => a !== 0n && b !== 0n },
  { '|': (a, b) => a | b },
  { '^': (a, b) => a ^ b },
  { '&': (a, b) => a & b },
  { '==': (a, b) => a === b, '!=': (a, b) => a !== b },
  {
    '<=': (a, b) => a <= b,
    '>=': (a, b) => a >= b,
    '<': (a, b) => a < b,
    '>': (a, b) => a > b,
  },
  { '<<': (a, b) => a << (b & 63n), '>>': (a, b) => a >> (b & 63n) },
  { '+': (a, b) => a + b, '-': (a, b) => a - b },
  // Where nobody asks for the value, as behind `0 &&`, nothing is divided by zero.
  { '*': (a, b) => a * b, '/': (a, b) => a / b, '%': (a, b) => a % b },
];
const TOKEN = /\s*(0x[0-9a-fA-F]+|[0-9]+|[A-Za-z_][A-Za-z_0-9]*|<<|>>|<=|>=|==|!=|&&|\|\||[^\s])/y;

/** @param look what a variable stands for */
export function arithmetic(text: string, look: (name: string) => string): bigint {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  for (let found = TOKEN.exec(text); found !== null; found = TOKEN.exec(text)) {
    tokens.push(found[1] ?? '');
  }
  const wrong = (): never => {
    throw new SumProblem(`not a sum: ${text.trim()}`);
  };
  const wrap = (value: bigint | boolean): bigint => BigInt.asIntN(64, BigInt(value));

  let skipped = 0;
  const unasked = (is: boolean, read: () => bigint): bigint => {
    skipped += Number(is);
    const value = read();
    skipped -= Number(is);
    return value;
  };

  const number = (token: string): bigint => {
    if (/^0[0-7]+$/.test(token)) return wrap(BigInt(`0o${token.slice(1)}`));
    return /^(0x[0-9a-fA-F]+|0|[1-9][0-9]*)$/.test(token) ? wrap(BigInt(token)) : wrong();
  };
  const unary = (): bigint => {
    const token = tokens.shift() ?? wrong();
    if (token === '-') return wrap(-unary());
    if (token === '+') return unary();
    if (token === '!') return wrap(unary() === 0n);
    if (token === '~') return ~unary();
    if (token === '(') {
      const value = choice();
      return tokens.shift() === ')' ? value : wrong();
    }
    if (!/^[A-Za-z_]/.test(token)) return number(token);
    const value = look(token).trim();
    if (value === '') return 0n;
    return value.startsWith('-') ? wrap(-number(value.slice(1))) : number(value);
  };
  const level = (n: number): bigint => {
    const operators = LEVELS[n];
    if (operators === undefined) return unary();
    let value = level(n + 1);
    for (;;) {
      const act = operators[tokens[0] ?? ''];
      if (act === undefined) return value;
      const operator = tokens.shift();
      const decided = (operator === '||' && value !== 0n) || (operator === '&&' && value === 0n);
      const second = unasked(decided, () => level(n + 1));
      const divides = operator === '/' || operator === '%';
      if (divides && second === 0n && skipped === 0) throw new SumProblem('division by zero');
      value = divides && second === 0n ? 0n : wrap(act(value, second));
    }
  };
  const choice = (): bigint => {
    const value = level(0);
    if (tokens[0] !== '?') return value;
    tokens.shift();
    const first = unasked(value === 0n, choice);
    if (tokens.shift() !== ':') wrong();
    const second = unasked(value !== 0n, choice);
    return value !== 0n ? first : second;
  };

  if (tokens.length === 0) return 0n;
  const value = choice();
  return tokens.length === 0 ? value : wrong();
}
