/**
 * What the shell understands, as a tree:
 *
 *     list:      pipelines joined by `;`, `&`, `&&`, `||` and newline, each perhaps after `!`
 *     command:   words, assignments, redirections; { list; }; ( list )
 *                if, while, until, for, case
 *     word:      text, quotes, backslash, $name, ${name:-word}, $(list), $((sum)), patterns
 *     redirect:  `<`, `>`, `>>`, `>&`, `<<` and `<<-` with the text on the lines that follow
 *
 * Anything else that a Unix shell would give a meaning to is refused, so that no script means one
 * thing here and another there. A command knows where it stands in the script: a forked child is
 * given that text, and reads it once more.
 */

export interface Redirection {
  readonly fd: number;
  readonly direction: '<' | '>' | '>>' | '>&' | '<<';
  /** of `<<` what is to be read */
  target: Word;
}

/**
 * A piece of a word: text as it stands; a variable; the output of commands, or the value of a sum,
 * whose text it is.
 */
export interface Piece {
  readonly kind: 'text' | 'variable' | 'commands' | 'sum';
  readonly text: string;
  readonly quoted: boolean;
  /** of a variable: `:-` and the like, and the word that stands behind it; `#` for its length */
  readonly how?: string;
  readonly word?: Word;
}
export type Word = readonly Piece[];

export interface Assignment {
  readonly name: string;
  readonly value: Word;
}

export type Command = { readonly redirections: readonly Redirection[] } & (
  | {
      readonly kind: 'simple';
      readonly assignments: readonly Assignment[];
      readonly words: readonly Word[];
    }
  | { readonly kind: 'group' | 'subshell'; readonly body: List }
  | {
      readonly kind: 'if';
      readonly branches: readonly { readonly condition: List; readonly body: List }[];
      readonly otherwise: List;
    }
  | {
      readonly kind: 'while' | 'until';
      readonly condition: List;
      readonly body: List;
    }
  | {
      readonly kind: 'for';
      readonly name: string;
      readonly words: readonly Word[] | null; // null: the parameters
      readonly body: List;
    }
  | {
      readonly kind: 'case';
      readonly word: Word;
      readonly branches: readonly { readonly patterns: readonly Word[]; readonly body: List }[];
    }
);

/** Where in the script something stands. */
export interface Place {
  readonly start: number;
  readonly end: number;
}
export interface Stage extends Place {
  readonly command: Command;
}
/** `when`: always, or only after success or failure of what came before. */
export interface Pipeline extends Place {
  readonly stages: readonly Stage[];
  readonly negated: boolean;
  readonly when: ';' | '&&' | '||';
}
/** Pipelines joined by `&&` and `||`. */
export interface Item extends Place {
  readonly pipelines: readonly Pipeline[];
  readonly background: boolean;
}
export type List = readonly Item[];

export interface Script {
  readonly list: List;
  /** the text of a part of it, by which a child finds its command */
  readonly textOf: (place: Place) => string;
}

export class SyntaxProblem extends Error {
  override readonly name: string = 'SyntaxProblem';
}
/** More lines could make sense of it. */
export class Unfinished extends SyntaxProblem {
  override readonly name = 'Unfinished';
}

const BLANK = ' \t';
const OPERATORS = '&& || ;; >> >& <<- << ; \n | & < > ( )'.split(' ');
const REDIRECTIONS = ['<', '>', '>>', '>&', '<<', '<<-'];
const RESERVED = '! { } if then elif else fi while until do done for in case esac'.split(' ');
const ESCAPED_IN_QUOTES = '\\"$`\n';
const NAME = /^[A-Za-z_][A-Za-z_0-9]*/;
const PARAMETER = /^([A-Za-z_][A-Za-z_0-9]*|[0-9]+|[?$#@*!])/;
const HOW = /^(:?[-+=])/;

/** A script as a tree. Throws SyntaxProblem. */
export function parseScript(text: string): Script {
  const parser = new Parser(text);
  const list = parser.whole();
  const textOf = ({ start, end }: Place): string => {
    const behind = parser.documents.filter((one) => one.at >= start && one.at < end);
    const bodies = behind
      .filter((one) => one.start >= end)
      .map((one) => text.slice(one.start, one.end));
    return bodies.length === 0
      ? text.slice(start, end)
      : `${text.slice(start, end)}\n${bodies.join('')}`;
  };
  return { list, textOf };
}

/** A text as between double quotes, which mean themselves. Throws SyntaxProblem. */
export const parseDocument = (text: string): Word => new WordReader(text, 0).document();

interface Token extends Place {
  readonly operator: string; // '' for a word; END at the end
  readonly word: Word;
  readonly fd: number; // of a redirection, -1 if none is said
}
const END = 'the end';

/** A here-document: where its operator stands, and the lines that belong to it. */
interface HereDocument {
  readonly at: number;
  readonly delimiter: string;
  readonly literal: boolean;
  readonly tabs: boolean; // are taken off
  readonly redirection: Redirection;
  start: number;
  end: number;
}

class Parser {
  readonly #text: string;
  readonly #nested: boolean;
  #at: number;
  #token: Token;
  #last = 0; // where the last token that was taken ends
  readonly documents: HereDocument[] = [];
  #waiting: HereDocument[] = [];

  /** @param from where a list begins that ends at `)`; without: all of the text is one */
  constructor(text: string, from?: number) {
    this.#text = text;
    this.#nested = from !== undefined;
    this.#at = from ?? 0;
    this.#token = this.#read();
  }

  whole(): List {
    return this.#list([END]);
  }

  /** The end of the list that `)` ends. */
  nested(): number {
    this.#list([')']);
    if (this.#waiting.length > 0)
      throw new SyntaxProblem('unsupported: << within $( ) on one line');
    return this.#token.start;
  }

  // ---- grammar ----------------------------------------------------------------------------------

  /** Up to one of these operators or reserved words, which is left to be taken. */
  #list(ends: readonly string[]): List {
    const items: Item[] = [];
    for (;;) {
      while (this.#is('\n')) this.#take();
      if (ends.includes(this.#token.operator) || ends.includes(this.#reserved())) return items;
      const start = this.#token.start;
      const pipelines = [this.#pipeline(';')];
      while (this.#is('&&') || this.#is('||')) {
        const when = this.#take().operator as '&&' | '||';
        while (this.#is('\n')) this.#take();
        pipelines.push(this.#pipeline(when));
      }
      const end = this.#last;
      const background = this.#is('&');
      items.push({ pipelines, background, start, end });
      if (this.#is(';') || background || this.#is('\n')) this.#take();
      else if (!ends.includes(this.#token.operator) && !ends.includes(this.#reserved())) {
        this.#unexpected();
      }
    }
  }

  #pipeline(when: Pipeline['when']): Pipeline {
    const start = this.#token.start;
    const negated = this.#reserved() === '!';
    if (negated) this.#take();
    if (this.#reserved() === '!') this.#unexpected();
    const stages = [this.#stage()];
    while (this.#is('|')) {
      this.#take();
      while (this.#is('\n')) this.#take();
      stages.push(this.#stage());
    }
    return { stages, negated, when, start, end: this.#last };
  }

  #stage(): Stage {
    const start = this.#token.start;
    return { command: this.#command(), start, end: this.#last };
  }

  #command(): Command {
    const opening = this.#is('(') ? '(' : this.#reserved();
    switch (opening) {
      case '':
        return this.#simple();
      case '(':
      case '{': {
        this.#take();
        const body = this.#body(opening === '(' ? ')' : '}');
        this.#take();
        const kind = opening === '(' ? ('subshell' as const) : ('group' as const);
        return { kind, body, redirections: this.#redirections() };
      }
      case 'if':
        return this.#if();
      case 'while':
      case 'until': {
        this.#take();
        const condition = this.#body('do');
        return { kind: opening, condition, body: this.#do(), redirections: this.#redirections() };
      }
      case 'for':
        return this.#for();
      case 'case':
        return this.#case();
      default:
        return this.#unexpected();
    }
  }

  #if(): Command {
    const branches: { condition: List; body: List }[] = [];
    let otherwise: List = [];
    for (let word = 'if'; word !== 'fi'; word = this.#reserved()) {
      this.#take();
      if (word === 'else') {
        otherwise = this.#body('fi');
        continue;
      }
      const condition = this.#body('then');
      this.#take();
      branches.push({ condition, body: this.#body('elif', 'else', 'fi') });
    }
    this.#take();
    return { kind: 'if', branches, otherwise, redirections: this.#redirections() };
  }

  #for(): Command {
    this.#take();
    const name = plainText(this.#token.word);
    if (name === null || NAME.exec(name)?.[0] !== name) this.#unexpected();
    this.#take();
    while (this.#is('\n')) this.#take();
    let words: Word[] | null = null;
    if (this.#reserved() === 'in') {
      words = [];
      for (this.#take(); this.#is(''); this.#take()) words.push(this.#token.word);
    }
    if (words !== null && !this.#is(';') && !this.#is('\n')) this.#unexpected();
    if (this.#is(';')) this.#take();
    while (this.#is('\n')) this.#take();
    return { kind: 'for', name, words, body: this.#do(), redirections: this.#redirections() };
  }

  #case(): Command {
    this.#take();
    const word = this.#word();
    while (this.#is('\n')) this.#take();
    this.#expect('in');
    const branches: { patterns: Word[]; body: List }[] = [];
    for (;;) {
      while (this.#is('\n')) this.#take();
      if (this.#reserved() === 'esac') break;
      if (this.#is('(')) this.#take();
      const patterns = [this.#word()];
      for (; this.#is('|'); patterns.push(this.#word())) this.#take();
      if (!this.#is(')')) this.#unexpected();
      this.#take();
      const body = this.#list([';;', 'esac']);
      branches.push({ patterns, body });
      if (!this.#is(';;')) break;
      this.#take();
    }
    this.#expect('esac');
    return { kind: 'case', word, branches, redirections: this.#redirections() };
  }

  #do(): List {
    this.#expect('do');
    const body = this.#body('done');
    this.#take();
    return body;
  }

  /** A list that is not empty. */
  #body(...ends: readonly string[]): List {
    const list = this.#list(ends);
    return list.length === 0 ? this.#unexpected() : list;
  }

  #simple(): Command {
    const assignments: Assignment[] = [];
    const words: Word[] = [];
    const redirections: Redirection[] = [];
    for (;;) {
      if (REDIRECTIONS.includes(this.#token.operator)) redirections.push(this.#redirection());
      else if (this.#is('')) {
        const set = words.length === 0 ? assignment(this.#token.word) : null;
        if (set !== null) assignments.push(set);
        else words.push(this.#token.word);
        this.#take();
        if (this.#is('(') && words.length === 1) throw new SyntaxProblem('unsupported: functions');
      } else if (assignments.length + words.length + redirections.length === 0) this.#unexpected();
      else return { kind: 'simple', assignments, words, redirections };
    }
  }

  #redirections(): Redirection[] {
    const found: Redirection[] = [];
    while (REDIRECTIONS.includes(this.#token.operator)) found.push(this.#redirection());
    return found;
  }

  #redirection(): Redirection {
    const { operator, fd, start } = this.#take();
    const { operator: wrong, word } = this.#token;
    if (wrong !== '') throw new SyntaxProblem('syntax error: a redirection needs a file');
    const plain = plainText(word) ?? '';
    if (operator === '>&' && !/^[0-9]$/.test(plain)) {
      throw new SyntaxProblem('syntax error: >& needs a descriptor');
    }
    const direction = (operator === '<<-' ? '<<' : operator) as Redirection['direction'];
    const reads = direction === '<' || direction === '<<';
    const redirection = { fd: fd >= 0 ? fd : reads ? 0 : 1, direction, target: word };
    if (direction === '<<') {
      if (word.some(({ kind }) => kind !== 'text')) {
        throw new SyntaxProblem('unsupported: a variable behind <<');
      }
      this.#waiting.push({
        at: start,
        delimiter: word.map(({ text }) => text).join(''),
        literal: word.some(({ quoted }) => quoted),
        tabs: operator === '<<-',
        redirection,
        start: 0,
        end: 0,
      });
    }
    this.#take(); // reads what is behind << if the line ends here
    return redirection;
  }

  // ---- tokens -----------------------------------------------------------------------------------

  #is(operator: string): boolean {
    return this.#token.operator === operator;
  }

  /** The reserved word that stands here, or ''. */
  #reserved(): string {
    const text = this.#is('') ? plainText(this.#token.word) : null;
    return text !== null && RESERVED.includes(text) ? text : '';
  }

  #expect(word: string): void {
    if (this.#reserved() !== word) this.#unexpected();
    this.#take();
  }

  #word(): Word {
    return this.#is('') ? this.#take().word : this.#unexpected();
  }

  #take(): Token {
    const token = this.#token;
    this.#last = token.end;
    this.#token = this.#read();
    return token;
  }

  #unexpected(): never {
    const { operator, start, end } = this.#token;
    if (operator === END) throw new Unfinished('syntax error: it ends too early');
    const what = JSON.stringify(operator === '' ? this.#text.slice(start, end) : operator);
    throw new SyntaxProblem(`syntax error near ${what}`);
  }

  #read(): Token {
    const text = this.#text;
    for (;;) {
      const character = text.charAt(this.#at);
      if (character !== '' && BLANK.includes(character)) this.#at++;
      else if (text.startsWith('\\\n', this.#at)) this.#at += 2;
      else if (character === '#') {
        const end = text.indexOf('\n', this.#at);
        this.#at = end < 0 ? text.length : end;
      } else break;
    }
    const start = this.#at;
    if (start >= text.length) {
      if (this.#nested) throw new Unfinished('syntax error: it ends within $(');
      if (this.#waiting.length > 0) throw new Unfinished('syntax error: it ends within <<');
      return { operator: END, word: [], start, end: start, fd: -1 };
    }
    const number = /^([0-9])[<>]/.exec(text.slice(start, start + 2))?.[1];
    const from = start + (number === undefined ? 0 : 1);
    const operator = OPERATORS.find((one) => text.startsWith(one, from));
    if (operator !== undefined) {
      this.#at = from + operator.length;
      if (operator === '\n') this.#readDocuments();
      return { operator, word: [], start, end: this.#at, fd: Number(number ?? -1) };
    }
    const { word, end } = new WordReader(text, start).read();
    this.#at = end;
    return { operator: '', word, start, end, fd: -1 };
  }

  /** The lines behind one that has `<<` in it. */
  #readDocuments(): void {
    const text = this.#text;
    for (const document of this.#waiting) {
      document.start = this.#at;
      let body = '';
      for (;;) {
        if (this.#at >= text.length) throw new Unfinished('syntax error: it ends within <<');
        const newline = text.indexOf('\n', this.#at);
        const end = newline < 0 ? text.length : newline;
        let line = text.slice(this.#at, end);
        if (document.tabs) line = line.replace(/^\t+/, '');
        this.#at = Math.min(end + 1, text.length);
        if (line === document.delimiter) break;
        if (newline < 0) throw new Unfinished('syntax error: it ends within <<');
        body += `${line}\n`;
      }
      document.end = this.#at;
      const { redirection, literal } = document;
      redirection.target = literal
        ? [{ kind: 'text', text: body, quoted: true }]
        : parseDocument(body);
      this.documents.push(document);
    }
    this.#waiting = [];
  }
}

/** A word without variables and quotes, or null. */
function plainText(word: Word): string | null {
  const [piece] = word;
  const plain = word.length === 1 && piece?.kind === 'text' && !piece.quoted;
  return plain ? piece.text : null;
}

/** `name=value`, or null. */
function assignment(word: Word): Assignment | null {
  const [first, ...rest] = word;
  if (first?.kind !== 'text' || first.quoted) return null;
  const name = NAME.exec(first.text)?.[0];
  if (name === undefined || first.text.charAt(name.length) !== '=') return null;
  return { name, value: [{ ...first, text: first.text.slice(name.length + 1) }, ...rest] };
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

  /** @param closing the character that ends it, if it stands within ${ } */
  read(closing = ''): { readonly word: Word; readonly end: number } {
    const text = this.#text;
    while (this.#at < text.length) {
      const character = text.charAt(this.#at);
      if (closing !== '') {
        if (character === closing) break;
      } else if (BLANK.includes(character) || OPERATORS.includes(character)) break;
      if (character === '`') this.#refuse('` (write $( ) instead)');
      if (character === '~' && this.#at === this.#start) this.#refuse(character);
      if (character === '\\') this.#backslash();
      else if (character === "'") this.#single();
      else if (character === '"') {
        this.#put('', true);
        this.#at++;
        this.#quoted('"');
        this.#at++;
      } else if (character === '$') this.#dollar(false);
      else {
        this.#put(character, false);
        this.#at++;
      }
    }
    return { word: this.#pieces, end: this.#at };
  }

  /** All of the text, as between double quotes, which mean themselves. */
  document(): Word {
    this.#put('', true);
    this.#quoted('');
    return this.#pieces;
  }

  /** Up to the `}` of a `${` that stands within double quotes. */
  within(): { readonly word: Word; readonly end: number } {
    this.#put('', true);
    this.#quoted('}');
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

  /** Up to `closing`, '' for the end of the text. */
  #quoted(closing: '"' | '}' | ''): void {
    const text = this.#text;
    while (this.#at < text.length || closing !== '') {
      if (this.#at >= text.length) {
        throw new Unfinished('syntax error: unterminated quoted string');
      }
      const character = text.charAt(this.#at);
      if (character === closing) return;
      if (character === '"' && closing === '}') this.#refuse('quotes within quoted ${ }');
      if (character === '`') this.#refuse('` (write $( ) instead)');
      if (character === '$') {
        this.#dollar(true);
        continue;
      }
      const next = text.charAt(this.#at + 1);
      const escapes = next !== '' && ESCAPED_IN_QUOTES.includes(next);
      if (character === '\\' && escapes && (next !== '"' || closing === '"')) {
        if (next !== '\n') this.#put(next, true);
        this.#at += 2;
      } else {
        this.#put(character, true);
        this.#at++;
      }
    }
  }

  /** `$x`, `${x}`, `$(list)`, `$((sum))`; a dollar before anything else is itself. */
  #dollar(quoted: boolean): void {
    const text = this.#text;
    const from = this.#at + 1;
    if (text.startsWith('((', from)) {
      const end = endOfSum(text, from + 2);
      this.#pieces.push({ kind: 'sum', text: text.slice(from + 2, end), quoted });
      this.#at = end + 2;
    } else if (text.startsWith('(', from)) {
      const end = new Parser(text, from + 1).nested();
      this.#pieces.push({ kind: 'commands', text: text.slice(from + 1, end), quoted });
      this.#at = end + 1;
    } else if (text.startsWith('{', from)) this.#braced(from + 1, quoted);
    else {
      const rest = text.slice(from, from + 256);
      const name = NAME.exec(rest)?.[0] ?? /^[0-9?$#@*!]/.exec(rest)?.[0];
      if (name === undefined && rest.startsWith('-')) this.#refuse('$-');
      if (name === undefined) this.#put('$', quoted);
      else this.#pieces.push({ kind: 'variable', text: name, quoted });
      this.#at = from + (name?.length ?? 0);
    }
  }

  /** What stands within `${ }`. */
  #braced(from: number, quoted: boolean): void {
    const text = this.#text;
    const counts = /^#[^}]/.test(text.slice(from, from + 2));
    const start = from + (counts ? 1 : 0);
    const name = PARAMETER.exec(text.slice(start))?.[0];
    if (name === undefined) this.#refuse('${');
    const how = counts ? '#' : HOW.exec(text.slice(start + name.length))?.[0];
    let end = start + name.length;
    let word: Word = [];
    if (how !== undefined && !counts) {
      const reader = new WordReader(text, end + how.length);
      ({ word, end } = quoted ? reader.within() : reader.read('}'));
    }
    if (end >= text.length) throw new Unfinished('syntax error: it ends within ${');
    if (text.charAt(end) !== '}') this.#refuse(`\${${name}${text.charAt(end)}`);
    const piece = { kind: 'variable' as const, text: name, quoted };
    this.#pieces.push(how === undefined ? piece : { ...piece, how, word });
    this.#at = end + 1;
  }
}

/** Where `))` stands that ends the sum which begins at `from`. */
function endOfSum(text: string, from: number): number {
  let depth = 0;
  for (let at = from; at < text.length; at++) {
    const character = text.charAt(at);
    if (character === '(') depth++;
    else if (character === ')' && depth > 0) depth--;
    else if (character === ')' && text.charAt(at + 1) === ')') return at;
    else if (character === ')') break;
  }
  throw new Unfinished('syntax error: it ends within $((');
}
