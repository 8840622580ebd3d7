/**
 * A memory broker as a library OS: at a stated time it asks each tenant for pages, waits until the
 * deadline, and then takes what is still wanted by force. It says on its console what it did. It
 * can do so because its capability has the empty name, above those of all tenants; the kernel knows
 * no brokers.
 */
import { Account, Info, MAP_READ, PageKind, Start, Status } from '../../kernel/abi.ts';
import { image, type Image, LibOS, type Op, type UserPort } from '../../libos/libos.ts';

export interface Revocation {
  /** of each tenant: 1 to 32 */
  readonly pages: number;
  /** cycle at which it asks */
  readonly at: number;
  /** cycles that a tenant has */
  readonly deadline: number;
}

const PAGE = 4096;
const ACCOUNTS_AT = Start.freePages * PAGE; // where it maps the account table
const TEXT_AT = Start.stackPage * PAGE + 2048;
const TEXT_MAX = 512;

class Broker extends LibOS {
  readonly #tenants: number;
  readonly #revocation: Revocation;

  constructor(port: UserPort, tenants: number, revocation: Revocation) {
    super(port);
    this.#tenants = tenants;
    this.#revocation = revocation;
  }

  override *main(_self: number, _root: number, _middle: number, leaf: number): Op<void> {
    const { at, deadline, pages } = this.#revocation;
    yield* this.sys.sleep(0, Math.max(0, at - this.port.cycles()));
    const table = yield* this.#info(Info.accountPage);
    for (let n = 0; n < 2; n++) {
      yield* this.sys.pageMap(leaf, Start.freePages + n, table + n, 0, 0, MAP_READ, 0);
    }
    const asked: number[] = [];
    for (let account = 1; account <= this.#tenants; account++) {
      if (yield* this.#ask(account)) asked.push(account);
    }
    yield* this.#sleepUntil(this.port.cycles() + deadline);
    for (const account of asked) {
      const wanted = yield* this.#account(account, Account.wanted);
      yield* this.#say(`tenant ${account} gave ${pages - wanted} of ${pages} pages in time`);
      if (wanted > 0) yield* this.#take(account);
    }
  }

  *#ask(account: number): Op<boolean> {
    const { pages, deadline } = this.#revocation;
    const range = { first: 0, pages: yield* this.#info(Info.pages) };
    const own = this.#tenants + 1;
    const { status } = yield* this.sys.revoke(account, 0, own, range, pages, deadline);
    if (status === Status.ok) return true;
    const used = yield* this.#account(account, Account.used);
    yield* this.#say(`tenant ${account} has only ${used} pages, ${pages} cannot be asked for`);
    return false;
  }

  /**
   * What is not given is taken: any page of the account's, as the exposed table has them; high ones
   * first, since the lowest is most likely the stack, without which its owner hears of nothing.
   */
  *#take(account: number): Op<void> {
    const pages = yield* this.#info(Info.pages);
    let taken = 0;
    for (let page = pages - 1; page >= 0; page--) {
      if ((yield* this.#account(account, Account.wanted)) === 0) break;
      const word = yield* this.port.load(Start.pagePages * PAGE + page * 4);
      if ((word & 0xff) !== PageKind.user || ((word >>> 8) & 0xff) !== account) continue;
      const { status } = yield* this.sys.repossess(account, 0, page);
      if (status === Status.ok || status === Status.again) taken++;
    }
    yield* this.#say(`tenant ${account} lost ${taken} pages by force`);
  }

  *#sleepUntil(at: number): Op<void> {
    for (let seen = 0; this.port.cycles() < at;) {
      seen = (yield* this.sys.sleep(seen, at - this.port.cycles())).value;
    }
  }

  *#info(word: number): Op<number> {
    return yield* this.port.load(Start.infoPage * PAGE + word * 4);
  }

  *#account(account: number, column: number): Op<number> {
    return yield* this.port.load(ACCOUNTS_AT + (account * Account.words + column) * 4);
  }

  *#say(text: string): Op<void> {
    const bytes = new TextEncoder().encode(`${text}\n`).subarray(0, TEXT_MAX);
    this.port.write(TEXT_AT, bytes, 0, bytes.length) ?? (yield* this.port.fault());
    yield* this.sys.consoleWrite(TEXT_AT, bytes.length);
  }
}

export const broker = (tenants: number, revocation: Revocation): Image =>
  image('broker', (port) => new Broker(port, tenants, revocation));
