/**
 * What the shell understands: pipelines joined by `;`, `&`, `&&`, `||` and newline; redirections
 * `<`, `>`, `>>` and `>&`; quotes, backslash, comments; variables; patterns of names. Anything else
 * that a Unix shell would give a meaning to is refused, so that no script means one thing here and
 * another there.
 */

export interface Redirection {
  readonly fd: number;
  readonly direction: '<' | '>' | '>>' | '>&';
  readonly target: Word;
}

/** A piece of a word: text as it stands, or a variable to be put there. */
export interface Piece {
  readonly kind: 'text' | 'variable';
  readonly text: string;
  readonly quoted: boolean;
}
export type Word = readonly Piece[];

export interface Command {
  readonly assignments: readonly { readonly name: string; readonly value: Word }[];
  readonly words: readonly Word[];
  readonly redirections: readonly Redirection[];
}

/** Where in the script a command of a pipeline stands. */
export interface Stage {
  readonly start: number;
  readonly end: number;
}
/** `when`: always, or only after success or failure of what came before. */
export interface Pipeline {
  readonly stages: readonly Stage[];
  readonly when: ';' | '&&' | '||';
  readonly background: boolean;
}

interface Token extends Stage {
  readonly operator: string; // '' for a word
  readonly word: Word;
}

export class SyntaxProblem extends Error {
  override readonly name: string = 'SyntaxProblem';
}
/** More lines could make sense of it. */
export class Unfinished extends SyntaxProblem {
  override readonly name = 'Unfinished';
}

const NONE = -1;
const BLANK = ' \t';
const OPERATORS = ['&&', '||', '>>', '>&', ';', '\n', '|', '&', '<', '>'];
const REDIRECTIONS = ['<', '>', '>>', '>&'];
/** Has a meaning that is not understood here. */
const FOREIGN = '()`';
const ESCAPED_IN_QUOTES = '\\"$`\n';
const NAME = /^[A-Za-z_][A-Za-z_0-9]*/;

/** The pipelines of a script, as places in it. Throws SyntaxProblem. */
export function parseScript(script: string): readonly Pipeline[] {
  const pipelines: Pipeline[] = [];
  let stages: Stage[] = [];
  let when: Pipeline['when'] = ';';
  let [start, end] = [NONE, 0]; // of the command that is being read
  for (const token of [...tokens(script), END]) {
    const { operator } = token;
    if (operator === '' || REDIRECTIONS.includes(operator)) {
      if (start === NONE) start = token.start;
      end = token.end;
      continue;
    }
    if (start === NONE) {
      const wants = stages.length > 0 || when !== ';';
      if (token === END && wants) throw new Unfinished('syntax error: it ends too early');
      if (operator === '\n') continue; // an empty line, or a line that ended in `|` or `&&`
      throw new SyntaxProblem(`syntax error near ${JSON.stringify(operator)}`);
    }
    parseCommand(script.slice(start, end)); // refuse it now rather than half-way
    stages.push({ start, end });
    start = NONE;
    if (operator === '|') continue;
    pipelines.push({ stages, when, background: operator === '&' });
    stages = [];
    when = operator === '&&' || operator === '||' ? operator : ';';
  }
  return pipelines;
}

/** One command: assignments, words, redirections. Throws SyntaxProblem. */
export function parseCommand(text: string): Command {
  const assignments: Command['assignments'][number][] = [];
  const words: Word[] = [];
  const redirections: Redirection[] = [];
  const all = tokens(text);
  for (let token = all.shift(); token !== undefined; token = all.shift()) {
    const next = all[0];
    let operator = token;
    if (token.operator === '') {
      const number = plainText(token.word);
      const redirects =
        number !== null &&
        /^[0-9]$/.test(number) &&
        next?.start === token.end &&
        next.operator !== '';
      if (!redirects) {
        const set = words.length === 0 ? assignment(token.word) : null;
        if (set !== null) assignments.push(set);
        else words.push(token.word);
        continue;
      }
      operator = all.shift() ?? token;
    }
    const target = all.shift();
    const direction = REDIRECTIONS.find((one) => one === operator.operator);
    if (target?.operator !== '' || direction === undefined) {
      throw new SyntaxProblem('syntax error: a redirection needs a file');
    }
    const fd = token === operator ? (direction === '<' ? 0 : 1) : Number(plainText(token.word));
    if (direction === '>&' && !/^[0-9]$/.test(plainText(target.word) ?? '')) {
      throw new SyntaxProblem('syntax error: >& needs a descriptor');
    }
    redirections.push({
      fd,
      direction: direction as Redirection['direction'],
      target: target.word,
    });
  }
  return { assignments, words, redirections };
}

/** A word without variables and quotes, or null. */
function plainText(word: Word): string | null {
  const [piece] = word;
  const plain = word.length === 1 && piece?.kind === 'text' && !piece.quoted;
  return plain ? piece.text : null;
}

/** `name=value`, or null. */
function assignment(word: Word): { name: string; value: Word } | null {
  const [first, ...rest] = word;
  if (first?.kind !== 'text' || first.quoted) return null;
  const name = NAME.exec(first.text)?.[0];
  if (name === undefined || first.text.charAt(name.length) !== '=') return null;
  return { name, value: [{ ...first, text: first.text.slice(name.length + 1) }, ...rest] };
}

const END: Token = { operator: '\n', word: [], start: 0, end: 0 };

function tokens(text: string): Token[] {
  const found: Token[] = [];
  for (let at = 0; at < text.length;) {
    const character = text.charAt(at);
    const operator = OPERATORS.find((one) => text.startsWith(one, at));
    if (BLANK.includes(character)) at++;
    else if (character === '#') {
      const end = text.indexOf('\n', at);
      at = end < 0 ? text.length : end;
    } else if (operator !== undefined) {
      found.push({ operator, word: [], start: at, end: at + operator.length });
      at += operator.length;
    } else {
      const { word, end } = new WordReader(text, at).read();
      if (word.length > 0) found.push({ operator: '', word, start: at, end });
      at = end;
    }
  }
  return found;
}

/** Reads one word: pieces between which quoting changes. */
class WordReader {
  readonly #text: string;
  readonly #start: number;
  #at: number;
  readonly #pieces: Piece[] = [];

  constructor(text: string, at: number) {
    this.#text = text;
    this.#start = at;
    this.#at = at;
  }

  read(): { readonly word: Word; readonly end: number } {
    const text = this.#text;
    while (this.#at < text.length) {
      const character = text.charAt(this.#at);
      if (BLANK.includes(character) || OPERATORS.includes(character)) break;
      if (FOREIGN.includes(character)) this.#refuse(character);
      if (character === '~' && this.#at === this.#start) this.#refuse(character);
      if (character === '\\') this.#backslash();
      else if (character === "'") this.#single();
      else if (character === '"') this.#double();
      else if (character === '$') this.#variable(false);
      else {
        this.#put(character, false);
        this.#at++;
      }
    }
    return { word: this.#pieces, end: this.#at };
  }

  #refuse(what: string): never {
    throw new SyntaxProblem(`unsupported: ${what}`);
  }

  #put(text: string, quoted: boolean): void {
    const last = this.#pieces.at(-1);
    if (last?.kind === 'text' && last.quoted === quoted) {
      this.#pieces[this.#pieces.length - 1] = { ...last, text: last.text + text };
    } else this.#pieces.push({ kind: 'text', text, quoted });
  }

  #backslash(): void {
    const next = this.#text.charAt(this.#at + 1);
    if (next !== '\n') this.#put(next === '' ? '\\' : next, true);
    this.#at += 2;
  }

  #single(): void {
    const end = this.#text.indexOf("'", this.#at + 1);
    if (end < 0) throw new Unfinished('syntax error: unterminated quoted string');
    this.#put(this.#text.slice(this.#at + 1, end), true);
    this.#at = end + 1;
  }

  #double(): void {
    const text = this.#text;
    this.#put('', true);
    for (this.#at++; text.charAt(this.#at) !== '"';) {
      if (this.#at >= text.length) {
        throw new Unfinished('syntax error: unterminated quoted string');
      }
      const character = text.charAt(this.#at);
      if (character === '`') this.#refuse(character);
      if (character === '$') {
        this.#variable(true);
        continue;
      }
      const next = text.charAt(this.#at + 1);
      if (character === '\\' && next !== '' && ESCAPED_IN_QUOTES.includes(next)) {
        if (next !== '\n') this.#put(next, true);
        this.#at += 2;
      } else {
        this.#put(character, true);
        this.#at++;
      }
    }
    this.#at++;
  }

  /** `$x`, `${x}`, `$?`, `$$`; a dollar before anything else is itself. */
  #variable(quoted: boolean): void {
    const rest = this.#text.slice(this.#at + 1);
    const braced = /^\{([A-Za-z_][A-Za-z_0-9]*|[?$])\}/.exec(rest);
    const name = braced?.[1] ?? NAME.exec(rest)?.[0] ?? /^[?$]/.exec(rest)?.[0];
    if (name === undefined) {
      if (rest.startsWith('{') || rest.startsWith('(')) this.#refuse(`$${rest.charAt(0)}`);
      if (/^[0-9@*#!-]/.test(rest)) this.#refuse(`$${rest.charAt(0)}`);
      this.#put('$', quoted);
      this.#at++;
      return;
    }
    this.#pieces.push({ kind: 'variable', text: name, quoted });
    this.#at += 1 + (braced?.[0].length ?? name.length);
  }
}
