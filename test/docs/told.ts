/** Documents that are run: their commands, and what stands under each. */
import { expect } from 'vitest';
import { exoscope } from '../../lab/exoscope.ts';

export interface Told {
  readonly command: string;
  /** lines that it prints; `...` stands for anything, alone on a line for any lines */
  readonly prints: readonly string[];
}

/** Every `    $ exoscope ...` of a document, with the indented lines under it. */
export function commandsOf(text: string): Told[] {
  const found: { command: string; prints: string[] }[] = [];
  let open = false;
  for (const line of text.split('\n')) {
    const command = /^ {4}\$ exoscope (.*)$/.exec(line);
    if (command !== null) {
      found.push({ command: command[1] ?? '', prints: [] });
      open = true;
    } else if (!/^( {4}|$)/.test(line)) open = false;
    else if (open) found.at(-1)?.prints.push(line.slice(4));
  }
  return found.map(({ command, prints }) => ({ command, prints: trimmed(prints) }));
}

function trimmed(lines: readonly string[]): string[] {
  const last = lines.findLastIndex((line) => line !== '');
  return lines.slice(0, last + 1);
}

export interface Said {
  readonly status: number;
  readonly text: string;
}

export async function run(args: readonly string[]): Promise<Said> {
  let text = '';
  const print = (part: string): void => void (text += part);
  const status = await exoscope(args, { out: print, err: print, redraws: false, status: 0 });
  return { status, text };
}

/** Holds what was printed to what the document says. */
export function expectTold(printed: string, { command, prints }: Told): void {
  const pattern = prints
    .map((line) => {
      if (line === '...') return '(?:.*\\n)*?';
      const parts = line.split('...').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
      return `${parts.join('.*')}\\n`;
    })
    .join('');
  expect(printed, command).toMatch(new RegExp(`^${pattern}$`));
}
