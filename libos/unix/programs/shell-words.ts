/**
 * From words as they are written to words as a program gets them: variables, splitting, patterns
 * of names, in the order of a Unix shell.
 */
import type { Op } from '../../syscalls.ts';
import type { Process } from '../process.ts';
import { join } from './bytes.ts';
import { arithmetic } from './shell-sums.ts';
import { parseDocument, type Piece, type Word } from './shell-syntax.ts';

/** A character of a word: whether it stands for itself, or may mean something in a pattern. */
interface Character {
  readonly text: string;
  readonly quoted: boolean;
}
type Field = readonly Character[];

/** What words mean is asked of whoever runs them. */
export interface Meaning {
  readonly process: Process;
  /** what a name stands for; undefined: it is not set */
  readonly look: (name: string) => string | undefined;
  readonly parameters: () => readonly string[];
  readonly assign: (name: string, value: string) => void;
  /** what commands print, without newlines at the end */
  readonly run: (commands: string) => Op<string>;
}

/** A piece whose value is known. A `break` stands between parameters: a field ends there. */
type Value =
  { readonly text: string; readonly quoted: boolean; readonly splits: boolean } | 'break';

/** Words of a command: each may become several, or none. */
export function* expand(words: readonly Word[], meaning: Meaning): Op<string[]> {
  const all: string[] = [];
  for (const word of words) {
    for (const field of fieldsOf(yield* valuesOf(word, meaning))) {
      const names = isPattern(field) ? yield* namesLike(meaning.process, field) : [];
      if (names.length > 0) all.push(...names);
      else all.push(textOf(field));
    }
  }
  return all;
}

/** A word that stays one: of an assignment, of a redirection. */
export function* expandOne(word: Word, meaning: Meaning): Op<string> {
  const values = yield* valuesOf(word, meaning);
  return values.map((value) => (value === 'break' ? ' ' : value.text)).join('');
}

/** Whether a text is like a pattern, all of it: `case`. */
export function* isLike(text: string, pattern: Word, meaning: Meaning): Op<boolean> {
  const characters: Character[] = [];
  for (const value of yield* valuesOf(pattern, meaning)) {
    if (value === 'break') characters.push({ text: ' ', quoted: true });
    else for (const one of value.text) characters.push({ text: one, quoted: value.quoted });
  }
  return shapeOf(characters).test(text);
}

function* valuesOf(word: Word, meaning: Meaning): Op<Value[]> {
  const values: Value[] = [];
  // The quotes around parameters of which there are none make no word.
  const none = word.some(isParameters) && meaning.parameters().length === 0;
  for (const piece of word) {
    const { kind, text, quoted } = piece;
    if (none && kind === 'text' && text === '') continue;
    const splits = kind !== 'text' && !quoted;
    if (kind === 'text') values.push({ text, quoted, splits });
    else if (kind === 'commands') {
      values.push({ text: yield* meaning.run(text), quoted, splits });
    } else if (kind === 'sum') {
      const sum = yield* expandOne(sumOf(text), meaning);
      const value = arithmetic(sum, (name) => meaning.look(name) ?? '');
      values.push({ text: String(value), quoted, splits });
    } else values.push(...(yield* ofVariable(piece, meaning)));
  }
  return values;
}

const isParameters = ({ kind, text, quoted, how }: Piece): boolean =>
  kind === 'variable' && text === '@' && quoted && how === undefined;

/** A sum's text with its variables, as between double quotes. */
const sumOf = (text: string): Word => parseDocument(text);

function* ofVariable(piece: Piece, meaning: Meaning): Op<Value[]> {
  const { text: name, quoted, how, word = [] } = piece;
  const splits = !quoted;
  if ((name === '@' || name === '*') && how === undefined) {
    const parameters = meaning.parameters();
    if (name === '*' && quoted) return [{ text: parameters.join(' '), quoted, splits }];
    return parameters.flatMap((text, n) => [
      ...(n > 0 ? ['break' as const] : []),
      { text, quoted, splits },
    ]);
  }
  const value = meaning.look(name);
  if (how === undefined) return [{ text: value ?? '', quoted, splits }];
  if (how === '#') return [{ text: String((value ?? '').length), quoted, splits }];
  const isSet = value !== undefined && !(how.startsWith(':') && value === '');
  if (how.endsWith('+')) return isSet ? yield* instead(word, meaning) : [];
  if (isSet) return [{ text: value, quoted, splits }];
  if (how.endsWith('-')) return yield* instead(word, meaning);
  const text = yield* expandOne(word, meaning);
  meaning.assign(name, text);
  return [{ text, quoted, splits }];
}

/** A word in place of a variable: it is split as that would be. */
function* instead(word: Word, meaning: Meaning): Op<Value[]> {
  const values = yield* valuesOf(word, meaning);
  return values.map((value) => (value === 'break' ? value : { ...value, splits: !value.quoted }));
}

/** Those without quotes are split at blanks. */
function fieldsOf(values: readonly Value[]): Field[] {
  const fields: Field[] = [];
  let field: Character[] = [];
  let begun = false;
  const end = (): void => {
    if (begun) fields.push(field);
    [field, begun] = [[], false];
  };
  for (const value of values) {
    if (value === 'break') {
      end();
      continue;
    }
    const { text, quoted, splits } = value;
    begun ||= quoted || (!splits && text !== '');
    for (const character of text) {
      if (splits && ' \t\n'.includes(character)) {
        end();
        continue;
      }
      begun = true;
      field.push({ text: character, quoted });
    }
  }
  end();
  return fields;
}

const textOf = (field: Field): string => field.map(({ text }) => text).join('');
const isMeta = ({ text, quoted }: Character): boolean => !quoted && '*?['.includes(text);
const isPattern = (field: Field): boolean => field.some(isMeta);

/** Paths that match, sorted; none if nothing does. */
function* namesLike(process: Process, field: Field): Op<string[]> {
  const parts: Character[][] = [[]];
  for (const character of field) {
    if (character.text === '/') parts.push([]);
    else parts.at(-1)?.push(character);
  }
  let paths = [''];
  for (const [n, part] of parts.entries()) {
    const next: string[] = [];
    const isLast = n === parts.length - 1;
    for (const path of paths) {
      if (!part.some(isMeta)) {
        const grown = path + textOf(part);
        if (!isLast) next.push(`${grown}/`);
        else if (part.length === 0 || typeof (yield* process.stat(grown)) !== 'number') {
          next.push(grown);
        }
        continue;
      }
      const names = yield* process.readdir(path === '' ? '.' : path);
      if (typeof names === 'number') continue;
      const shape = shapeOf(part);
      const hidden = part[0]?.text === '.';
      for (const name of names) {
        if (name.startsWith('.') !== hidden || !shape.test(name)) continue;
        const grown = path === '' ? name : join(path, name);
        if (isLast) next.push(grown);
        else {
          const stat = yield* process.stat(grown);
          if (typeof stat !== 'number' && stat.directory) next.push(`${grown}/`);
        }
      }
    }
    paths = next;
  }
  return paths.sort((a, b) => (a < b ? -1 : Number(a > b)));
}

/** A pattern of one name as a regular expression. */
function shapeOf(part: readonly Character[]): RegExp {
  let shape = '';
  const literal = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
  for (let at = 0; at < part.length; at++) {
    const character = part[at];
    if (character === undefined) break;
    if (!isMeta(character)) shape += literal(character.text);
    else if (character.text === '*') shape += '[^]*';
    else if (character.text === '?') shape += '[^]';
    else {
      const end = part.findIndex((one, n) => n > at + 1 && one.text === ']' && !one.quoted);
      if (end < 0) {
        shape += '\\[';
        continue;
      }
      const inside = part.slice(at + 1, end);
      const negated = inside[0]?.text === '!' || inside[0]?.text === '^';
      const set = inside
        .slice(negated ? 1 : 0)
        .map(({ text, quoted }) => (text === '-' && !quoted ? '-' : literal(text)))
        .join('');
      shape += `[${negated ? '^' : ''}${set}]`;
      at = end;
    }
  }
  return new RegExp(`^${shape}$`);
}
