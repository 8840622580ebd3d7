/**
 * From words as they are written to words as a program gets them: variables, splitting, patterns
 * of names, in the order of a Unix shell.
 */
import type { Op } from '../../syscalls.ts';
import type { Process } from '../process.ts';
import { join } from './bytes.ts';
import type { Word } from './shell-syntax.ts';

/** A character of a word: whether it stands for itself, or may mean something in a pattern. */
interface Character {
  readonly text: string;
  readonly quoted: boolean;
}
type Field = readonly Character[];

/** What a name stands for, '' if nothing. */
export type Lookup = (name: string) => string;

/** Words of a command: each may become several, or none. */
export function* expand(process: Process, words: readonly Word[], look: Lookup): Op<string[]> {
  const all: string[] = [];
  for (const word of words) {
    for (const field of fieldsOf(word, look)) {
      const names = isPattern(field) ? yield* namesLike(process, field) : [];
      if (names.length > 0) all.push(...names);
      else all.push(textOf(field));
    }
  }
  return all;
}

/** A word that stays one: of an assignment, of a redirection. */
export const expandOne = (word: Word, look: Lookup): string =>
  word.map((piece) => (piece.kind === 'text' ? piece.text : look(piece.text))).join('');

/** Variables put in; those without quotes are split at blanks. */
function fieldsOf(word: Word, look: Lookup): Field[] {
  const fields: Field[] = [];
  let field: Character[] = [];
  let begun = false;
  const end = (): void => {
    if (begun) fields.push(field);
    [field, begun] = [[], false];
  };
  for (const { kind, text, quoted } of word) {
    const value = kind === 'text' ? text : look(text);
    if (quoted || kind === 'text') begun ||= quoted || value !== '';
    for (const character of value) {
      if (kind === 'variable' && !quoted && ' \t\n'.includes(character)) {
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
