/**
 * What the shell understands: commands separated by `;` or newline, pipelines, redirections of
 * files, single and double quotes, backslash, comments. Anything else that a Unix shell would give
 * a meaning to is refused, so that no script means one thing here and another there.
 */

export interface Redirection {
  readonly fd: number;
  readonly direction: '<' | '>';
  readonly path: string;
}

export interface Command {
  readonly words: readonly string[];
  readonly redirections: readonly Redirection[];
}

/** Where in the script a command of a pipeline stands. */
export interface Stage {
  readonly start: number;
  readonly end: number;
}
export type Pipeline = readonly Stage[];

interface Token extends Stage {
  readonly kind: 'word' | 'operator';
  readonly text: string; // quotes removed
  readonly quoted: boolean;
}

export class SyntaxProblem extends Error {
  override readonly name = 'SyntaxProblem';
}

const NONE = -1;
const BLANK = ' \t';
const OPERATORS = ';\n|<>';
/** Has a meaning that is not understood here. */
const FOREIGN = '&()$`*?[';
const FOREIGN_IN_QUOTES = '$`';
const ESCAPED_IN_QUOTES = '\\"$`\n';

/** The pipelines of a script, as places in it. Throws SyntaxProblem. */
export function parseScript(script: string): readonly Pipeline[] {
  const pipelines: Pipeline[] = [];
  let stages: Stage[] = [];
  let [start, end] = [NONE, 0]; // of the command that is being read
  for (const token of [...tokens(script), END]) {
    if (token.kind === 'word' || token.text === '<' || token.text === '>') {
      if (start === NONE) start = token.start;
      end = token.end;
      continue;
    }
    if (start === NONE) {
      const harmless = token.text === '\n' && (token !== END || stages.length === 0);
      if (harmless) continue; // an empty line, or a line that ended in `|`
      throw new SyntaxProblem(`syntax error near ${JSON.stringify(token.text)}`);
    }
    parseCommand(script.slice(start, end)); // refuse it now rather than half-way
    stages.push({ start, end });
    start = NONE;
    if (token.text === '|') continue;
    pipelines.push(stages);
    stages = [];
  }
  return pipelines;
}

/** One command: words and redirections. Throws SyntaxProblem. */
export function parseCommand(text: string): Command {
  const words: string[] = [];
  const redirections: Redirection[] = [];
  const all = tokens(text);
  for (let token = all.shift(); token !== undefined; token = all.shift()) {
    const next = all[0];
    if (token.kind === 'word') {
      const isNumber = /^[0-9]$/.test(token.text) && !token.quoted;
      const redirects = next?.kind === 'operator' && next.start === token.end;
      if (!isNumber || !redirects) {
        words.push(token.text);
        continue;
      }
    }
    const operator = token.kind === 'word' ? all.shift() : token;
    const path = all.shift();
    const direction = operator?.text;
    if (path?.kind !== 'word' || (direction !== '<' && direction !== '>')) {
      throw new SyntaxProblem('syntax error: a redirection needs a file');
    }
    const standard = direction === '<' ? 0 : 1;
    const fd = token.kind === 'word' ? Number(token.text) : standard;
    redirections.push({ fd, direction, path: path.text });
  }
  return { words, redirections };
}

const END: Token = { kind: 'operator', text: '\n', start: 0, end: 0, quoted: false };

function tokens(text: string): Token[] {
  const found: Token[] = [];
  for (let at = 0; at < text.length;) {
    const character = text.charAt(at);
    if (BLANK.includes(character)) at++;
    else if (character === '#') {
      const end = text.indexOf('\n', at);
      at = end < 0 ? text.length : end;
    } else if (OPERATORS.includes(character)) {
      if (character === '>' && text.charAt(at + 1) === '>') {
        throw new SyntaxProblem('unsupported: >>');
      }
      found.push({ kind: 'operator', text: character, start: at, end: ++at, quoted: false });
    } else {
      const word = readWord(text, at);
      if (word.text !== '' || word.quoted) found.push(word);
      at = word.end;
    }
  }
  return found;
}

function readWord(text: string, start: number): Token {
  let word = '';
  let quoted = false;
  let at = start;
  const refuse = (character: string): never => {
    throw new SyntaxProblem(`unsupported: ${character}`);
  };
  for (; at < text.length; at++) {
    const character = text.charAt(at);
    if (BLANK.includes(character) || OPERATORS.includes(character)) break;
    if (FOREIGN.includes(character)) refuse(character);
    if (character === '~' && at === start) refuse(character);
    if (character === '\\') {
      const next = text.charAt(++at);
      if (next !== '\n') word += next === '' ? '\\' : next;
      quoted ||= next !== '\n';
      continue;
    }
    if (character !== "'" && character !== '"') {
      word += character;
      continue;
    }
    quoted = true;
    for (at++; text.charAt(at) !== character; at++) {
      if (at >= text.length) throw new SyntaxProblem('syntax error: unterminated quoted string');
      const inner = text.charAt(at);
      if (character === '"' && FOREIGN_IN_QUOTES.includes(inner)) refuse(inner);
      const next = text.charAt(at + 1);
      const escapes = character === '"' && inner === '\\' && next !== '';
      if (!escapes || !ESCAPED_IN_QUOTES.includes(next)) word += inner;
      else if (text.charAt(++at) !== '\n') word += text.charAt(at);
    }
  }
  return { kind: 'word', text: word, start, end: at, quoted };
}
