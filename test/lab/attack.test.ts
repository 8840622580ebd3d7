/** `exoscope attack`: what it says of a check is so, and a check that does not exist is refused. */
import { describe, expect, test } from 'vitest';
import { exoscope } from '../../lab/exoscope.ts';

interface Said {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

async function attack(...args: string[]): Promise<Said> {
  let [out, err] = ['', ''];
  const status = await exoscope(['attack', ...args], {
    out: (text) => void (out += text),
    err: (text) => void (err += text),
    redraws: false,
    status: 0,
  });
  return { status, out, err };
}

// All thirteen at once: test/examples.test.ts.
describe('exoscope attack', () => {
  test('names the check, the refusal and the owner; the command that it prints works', async () => {
    const { status, out } = await attack('--only', 'dma');
    expect(status).toBe(0);
    expect(out).toContain('1 of 1 attacks were stopped\n');
    expect(out).toMatch(
      /refused: diskRequest\(.*\), at examples\/attacks\/dma\.ts:\d+ \(Dma\.attack\)/,
    );
    expect(out).toContain('slot 0 is a capability for name 2 with READ WRITE GRANT REVOKE');
    expect(out).toContain('see docs/ABI.md#diskrequest-26');
    const check = /--only dma --break (disk\.ts:\d+)\n/.exec(out)?.[1] ?? '';
    const broken = await attack('--only', 'dma', '--break', check);
    expect(broken.status).toBe(0);
    expect(broken.out).toContain("the attack SUCCEEDED: the disk wrote over the victim's page");
    expect(broken.out).toContain('victim: HARMED: 0 stands where its secret was');
  }, 60_000);

  test('shows the harm without the check, whether that refuses or fences', async () => {
    const harms = {
      'plant-page': 'victim: HARMED: its secret is not mapped where it was: nothing is',
      'stale-mapping': 'it read the secret by a mapping that is gone',
      'jump-window': "victim: HARMED: a stranger's page stands in its window",
      'change-batch': 'the attack SUCCEEDED: a call that nobody checked mapped the secret',
    };
    const { status, out } = await attack('--only', Object.keys(harms).join(','));
    expect([status, out]).toEqual([0, expect.stringContaining('4 of 4 attacks were stopped\n')]);
    for (const harm of Object.values(harms)) expect(out).toContain(harm);
    const check = /--only stale-mapping --break (bindings\.ts:\d+)\n/.exec(out)?.[1] ?? '';
    const broken = await attack('--only', 'stale-mapping', '--break', check);
    expect(broken.status).toBe(0);
    expect(broken.out).toContain(`${harms['stale-mapping']}\n    victim: it notices nothing\n`);
  }, 60_000);

  test('lists what there is', async () => {
    const { out } = await attack('--list');
    expect(out.trimEnd().split('\n')).toHaveLength(13);
    for (const line of out.trimEnd().split('\n')) expect(line).toMatch(/^[a-z-]+ +[A-Z].*\.$/);
  });

  test.each([
    [['--only', 'nope'], /no such attack; there are change-batch, destroy, /],
    [
      ['--only', 'dma', '--break', 'disk.ts:nope'],
      /no such check; in disk\.ts there are .*fetchList/,
    ],
  ])(
    '%j makes no sense: exit status 2',
    async (args, says) => {
      const { status, out, err } = await attack(...args);
      expect({ status, out }).toEqual({ status: 2, out: '' });
      expect(err).toMatch(/^exoscope: .+\n$/);
      expect(err).toMatch(says);
    },
    60_000,
  );
});
