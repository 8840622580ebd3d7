/**
 * The store as others use it: tenants that do not trust it or each other, over IPC, with pages that
 * they granted.
 */
import { expect, test } from 'vitest';
import { KvStatus } from '../../../libos/kv/protocol.ts';
import { bytes, client, text, world } from './rig.ts';

test('a tenant puts, gets, scans and removes in the store of another', () => {
  const seen: unknown[] = [];
  const { machine, said } = world({
    clients: [
      client(function* ({ kv }) {
        seen.push(yield* kv.connect());
        for (const key of ['cherry', 'apple', 'banana', 'date']) {
          seen.push(yield* kv.put(bytes(key), bytes(`a ${key}`)));
        }
        seen.push(yield* kv.put(bytes('apple'), bytes('two apples'), true));
        const got = yield* kv.get(bytes('apple'));
        seen.push(got.status, text(got.value));
        seen.push((yield* kv.get(bytes('fig'))).status);
        seen.push(yield* kv.remove(bytes('banana')), yield* kv.remove(bytes('banana')));
        const range = yield* kv.scan(bytes('b'), bytes(''));
        seen.push(
          range.more,
          range.pairs.map((pair) => `${text(pair.key)}=${text(pair.value)}`),
        );
        seen.push(yield* kv.sync());
        yield* kv.close();
        seen.push((yield* kv.get(bytes('apple'))).status); // a new session by itself
      }),
    ],
  });
  machine.run(1e10);
  expect([...said.values()].join('')).toBe('');
  expect(seen).toEqual([
    true,
    ...[0, 0, 0, 0],
    0,
    ...[0, 'two apples'],
    KvStatus.absent,
    ...[0, KvStatus.absent],
    ...[false, ['cherry=a cherry', 'date=a date']],
    0,
    0,
  ]);
});
