/**
 * The CPU: a vector of time slices, held by position. The kernel goes round it; each position runs
 * its owner, or whom the owner's call is waiting for, or whom it yielded to. A position whose owner
 * cannot run is passed over. The slice's end is announced to whoever registered for it; who then
 * overruns the grace period forfeits a turn, and dies of too many. Aegis (SOSP 1995), section
 * 5.1.1.
 *
 * What is run past a slice's end, grace included, the position owes, and pays out of its next
 * turns: whoever ran, by whatever gift of time, and whoever holds it by then, death and rebirth
 * included. So no position has more than its turns and one overrun, and who is always ready gets
 * its share of any stretch of time less a constant. Interrupts are owed by the position whose
 * requests they complete, and lengthen the slice that they fall into.
 */
import { NEVER, type Tick } from '../../machine/units.ts';
import {
  Account,
  Env,
  EnvState,
  GRACE,
  Info,
  PREDICATE_TERMS,
  Resource,
  Status,
  Upcall,
  Woken,
} from '../abi.ts';
import {
  type Context,
  loadTick,
  REGISTERS_ALL,
  REGISTERS_CALL,
  REGISTERS_YIELD,
  storeTick,
} from '../supervisor.ts';
import { charge, credit, hasRoom, payer } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { checkEnv } from './capabilities.ts';
import { kill, post, rouse, unqueue, wake } from './life.ts';
import { evaluate, fetchTerms, holds, keepTerms } from './predicates.ts';
import { Cpu, EXCESS_MAX, isSlot, positionNamed, Private, SLICE_MIN, type State } from './state.ts';
import { interrupts, pushPending, pushSliceUpcall } from './upcalls.ts';

const CALL_CHAIN = 8; // environments that wait for one another, followed at most this far
/** A turn that would be shorter is not taken, but added to the next. */
const TURN_MIN = SLICE_MIN / 2;
const DEBT_MAX = 2 ** 30; // cycles: a word holds it
const CYCLES_MAX = 2 ** 31 - 1; // of a sleep

/**
 * yield(target | -1): gives the rest of the slice to a ready environment, or back.
 *
 * @refuses badEnvironment 0 (no such environment); notReady 0 (neither it nor whom it calls can
 *   run)
 * @source Aegis (SOSP 1995), section 5.1.1: directed yield.
 */
export function yieldTo(state: State, caller: number, claim: Claims): Answer | null {
  const id = claim(0);
  if (id === -1) {
    state.machine.contexts.setResult(caller, Status.ok, 0);
    giveBack(state, caller);
    return null;
  }
  const target = state.row(id);
  if (target < 0) return refuse(Status.badEnvironment, 0);
  const runner = runnerFor(state, target);
  if (runner === 0) return refuse(Status.notReady, 0);

  state.machine.contexts.setResult(caller, Status.ok, 0);
  state.cpu.put(0, Cpu.current, runner);
  return null;
}

/** The rest of a borrowed slice goes back to its owner; an owner gives it up. */
function giveBack(state: State, caller: number): void {
  if (state.cpu.get(0, Cpu.owner) === caller) endSlice(state);
  state.cpu.put(0, Cpu.current, 0);
}

/**
 * sleep(seen, cycles | -1, predicate address, terms): waits until the caller's event count is not
 * `seen`, `cycles` have passed, or the predicate holds: `terms` terms, 0 to PREDICATE_TERMS, of
 * which those up to one marked as last form a product. The value is the event count; result
 * register 1 is the reason (event, predicate, deadline), 2 the tag of the product's last term.
 * Deadline and predicate are looked at when somebody would run the sleeper. One that may not read a
 * word of its predicate any more wakes with notPermitted 2.
 *
 * @refuses badArgument 0 (not an integer); badArgument 1 (not -1, nor 0 to 2^31 - 1); badArgument 3
 *   (negative); tooMany 3 (more than 8); badAddress 2 (a term cannot be read); badArgument 2 (a
 *   term names no page, word, entry or operator); wrongKind 2 (its page is neither a published nor
 *   a user page); absent 2 (the access entry is empty); notPermitted 2 (the access entry lacks
 *   READ); noCapability 2 (the slot is empty); notPermitted 2 (the slot lacks READ or does not
 *   dominate the entry)
 * @source Xok (SOSP 1997), section 3: wakeup predicates.
 */
export function sleep(state: State, caller: number, claim: Claims): Answer | null {
  const [seen, cycles, address, terms] = [claim(0), claim(1), claim(2), claim(3)];
  if (!Number.isInteger(seen)) return refuse(Status.badArgument, 0);
  if (!Number.isInteger(cycles) || cycles < -1 || cycles > CYCLES_MAX) {
    return refuse(Status.badArgument, 1);
  }
  if (!Number.isInteger(terms) || terms < 0) return refuse(Status.badArgument, 3);
  if (terms > PREDICATE_TERMS) return refuse(Status.tooMany, 3);
  const words = fetchTerms(state, caller, address, terms);
  if (!Array.isArray(words)) return words;

  const { contexts } = state.machine;
  const events = state.env.get(caller, Env.events);
  const found = evaluate(state, caller, terms, (n) => words[n] ?? 0);
  if (events !== (seen | 0) || interrupts(state, caller)) {
    contexts.setResult(caller, Status.ok, events, Woken.event, 0);
  } else if (found !== null) {
    contexts.setResult(caller, Status.ok, events, Woken.predicate, found.value);
  } else if (cycles === 0) {
    contexts.setResult(caller, Status.ok, events, Woken.deadline, 0);
  } else {
    const deadline = cycles < 0 ? 0 : state.machine.now() + cycles;
    storeTick(state.env, caller, Env.deadline, deadline);
    keepTerms(state, caller, words);
    state.env.put(caller, Env.state, EnvState.sleeping);
    giveBack(state, caller);
  }
  return null;
}

/** Wakes sleeper `env` if its time has come or its predicate is true, or broken. */
function isDue(state: State, env: number): boolean {
  const events = state.env.get(env, Env.events);
  if (state.env.get(env, Env.terms) > 0) {
    const found = holds(state, env);
    if (found?.status === Status.ok) {
      rouse(state, env, events, Woken.predicate, found.value);
      return true;
    }
    if (found !== null) {
      state.machine.contexts.setResult(env, found.status, found.value, Woken.predicate, 0);
      wake(state, env);
      return true;
    }
  }
  const deadline = loadTick(state.env, env, Env.deadline);
  if (deadline === 0 || state.machine.now() < deadline) return false;
  rouse(state, env, events, Woken.deadline, 0);
  return true;
}

/**
 * notify(env, slot): posts an event to an environment under the caller's authority.
 *
 * @refuses badEnvironment 0 (no such environment); badArgument 1 (not a slot); noCapability 1
 *   (the environment is another and the slot is empty); notPermitted 1 (the slot does not
 *   dominate its guard with WRITE)
 */
export function notify(state: State, caller: number, claim: Claims): Answer {
  const env = state.row(claim(0));
  if (env < 0) return refuse(Status.badEnvironment, 0);
  const slot = claim(1);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  const may = checkEnv(state, caller, slot, env);
  if (may !== Status.ok) return refuse(may, 1);

  post(state, env);
  return ok();
}

/**
 * sliceAllocate(position, env, slot): gives a free position to an environment, at the expense of
 * its account. What the position owes it goes on owing.
 *
 * @refuses badArgument 0 (not a position); badEnvironment 1 (no such environment, or dead);
 *   badArgument 2 (not a slot); noCapability 2 (the environment is another and the slot is empty);
 *   notPermitted 2 (the slot does not dominate its guard with WRITE); notFree 0 (a living
 *   environment holds it); quota 1 (its account has no position left)
 * @source Aegis (SOSP 1995), section 5.1.1: the slice vector.
 */
export function sliceAllocate(state: State, caller: number, claim: Claims): Answer {
  const [position, id, slot] = [positionNamed(state, claim(0)), claim(1), claim(2)];
  if (position < 0) return refuse(Status.badArgument, 0);
  const env = state.row(id);
  if (env < 0 || state.stateOf(env) === EnvState.zombie) return refuse(Status.badEnvironment, 1);
  if (!isSlot(slot)) return refuse(Status.badArgument, 2);
  const may = checkEnv(state, caller, slot, env);
  if (may !== Status.ok) return refuse(may, 2);
  if (liveOwner(state, position) !== 0) return refuse(Status.notFree, 0);
  const account = payer(state, env);
  // A dead owner's position is charged until somebody takes it over.
  const charged = chargedFor(state, position);
  if (charged !== account && !hasRoom(state, account, Resource.slices)) {
    return refuse(Status.quota, 1);
  }

  vacate(state, position);
  state.setInfo(Info.sliceVector + position, id);
  state.setInfo(Info.sliceAccount + position, account);
  charge(state, account, Resource.slices);
  return ok();
}

/**
 * sliceFree(position, slot): frees a position whose owner is under the caller's authority; a dead
 * owner's anybody may free.
 *
 * @refuses badArgument 0 (not a position); badArgument 1 (not a slot); absent 0 (nobody holds it);
 *   noCapability 1 (another, alive, holds it and the slot is empty); notPermitted 1 (the slot does
 *   not dominate the holder's guard with WRITE)
 */
export function sliceFree(state: State, caller: number, claim: Claims): Answer {
  const [position, slot] = [positionNamed(state, claim(0)), claim(1)];
  if (position < 0) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  if (chargedFor(state, position) < 0) return refuse(Status.absent, 0);
  const owner = liveOwner(state, position);
  const may = owner === 0 ? Status.ok : checkEnv(state, caller, slot, owner);
  if (may !== Status.ok) return refuse(may, 1);

  vacate(state, position);
  return ok();
}

/** Account that a position is charged to, or -1. */
const chargedFor = (state: State, position: number): number =>
  state.sliceOwner(position) === 0 ? -1 : state.info.get(0, Info.sliceAccount + position);

/** Nobody holds the position: whoever knows it by its old name does not know it any more. */
function vacate(state: State, position: number): void {
  const charged = chargedFor(state, position);
  if (charged >= 0) credit(state, charged, Resource.slices);
  state.setInfo(Info.sliceVector + position, 0);
  state.info.add(0, Info.sliceGeneration + position, 1);
}

/** Row of the living environment that holds `position`, or 0: a dead owner holds nothing. */
function liveOwner(state: State, position: number): number {
  const row = state.row(state.sliceOwner(position));
  return row > 0 && state.stateOf(row) !== EnvState.zombie ? row : 0;
}

/** Who runs when `env` has the CPU: itself, or whom its call waits for; 0 if nobody can. */
export function runnerFor(state: State, env: number): number {
  const at = endOfCalls(state, env);
  if (at === 0) return 0;
  const is = state.stateOf(at);
  if (is === EnvState.ready) return at;
  return is === EnvState.sleeping && isDue(state, at) ? at : 0;
}

/**
 * Whom `env` waits for in the end: the first that is in no call, itself perhaps; 0 if one of them
 * is suspended. A call whose callee has died ends here, refused: its caller is ready.
 */
function endOfCalls(state: State, env: number): number {
  let at = env;
  for (let hop = 0; hop < CALL_CHAIN; hop++) {
    if (state.env.get(at, Env.suspended) !== 0) return 0;
    if (state.stateOf(at) !== EnvState.calling) return at;
    const callee = state.row(state.env.get(at, Env.partner));
    if (callee < 0 || state.stateOf(callee) === EnvState.zombie) {
      unqueue(state, at);
      state.machine.contexts.setResult(at, Status.badEnvironment, 0);
      state.env.put(at, Env.state, EnvState.ready);
      return at;
    }
    at = callee;
  }
  return 0;
}

/** A timer trap. It may be spurious; the slice's end may be announced first, and overrun. */
export function tick(state: State): void {
  const { machine, cpu } = state;
  let end = loadTick(cpu, 0, Cpu.end);
  const now = machine.now();
  if (now < end) return;
  const current = cpu.get(0, Cpu.current);
  if (current === 0) return;
  end = lengthen(state, end);
  if (now < end) {
    machine.setTimer(end);
    return;
  }
  const first = cpu.get(0, Cpu.grace) === 0;
  if (first && pushSliceUpcall(state, current, Upcall.sliceEnd)) {
    owe(state, state.info.get(0, Info.slicePosition), now - end);
    cpu.put(0, Cpu.grace, 1);
    cpu.put(0, Cpu.told, current);
    storeTick(cpu, 0, Cpu.end, now + GRACE);
    machine.setTimer(now + GRACE);
    return;
  }
  if (!first && cpu.get(0, Cpu.told) === current) exceed(state, current);
  endSlice(state);
}

/**
 * A slice, and a grace period, is of the machine's own time: what whoever runs the machine took of
 * it meanwhile is added. Nothing on the hardware. @returns when it ends
 */
function lengthen(state: State, end: Tick): Tick {
  const { machine, cpu } = state;
  const stolen = machine.stolen();
  const taken = stolen === 0 ? 0 : stolen - loadTick(cpu, 0, Cpu.stolen);
  if (taken <= 0) return end;
  storeTick(cpu, 0, Cpu.stolen, stolen);
  storeTick(cpu, 0, Cpu.end, end + taken);
  return end + taken;
}

/** An overrun of the grace period costs a turn more; too many at once cost the environment. */
function exceed(state: State, env: number): void {
  owe(state, state.info.get(0, Info.slicePosition), state.config.sliceCycles);
  const excess = state.env.add(env, Env.excess, 1);
  if (excess > EXCESS_MAX) kill(state, env, -1);
}

/** The slice that is being served is over; what ran beyond it is owed. */
function endSlice(state: State): void {
  const { machine, cpu } = state;
  const late = machine.now() - loadTick(cpu, 0, Cpu.end);
  const grace = cpu.get(0, Cpu.grace) === 0 ? 0 : GRACE;
  owe(state, state.info.get(0, Info.slicePosition), late + grace);
  cpu.put(0, Cpu.current, 0);
  cpu.put(0, Cpu.owner, 0);
}

function owe(state: State, position: number, cycles: number): void {
  if (cycles <= 0) return;
  const owed = state.info.get(0, Info.sliceDebt + position) + cycles;
  state.setInfo(Info.sliceDebt + position, Math.min(owed, DEBT_MAX));
}

/**
 * An external interrupt, or a request of one, has been served; it is nobody's slice. `position`,
 * which asked for it, owes what it took (-1: nobody does), and the slice that it fell into is that
 * much longer. The way out of the kernel cannot be measured here: it is taken to be as long again.
 * @param since when the trap came, or the last request was served
 * @returns now
 */
export function interrupted(state: State, since: number, position: number): number {
  const { machine, cpu } = state;
  const now = machine.now();
  const took = 2 * (now - since);
  if (position >= 0) owe(state, position, took);
  if (cpu.get(0, Cpu.owner) !== 0) {
    const end = loadTick(cpu, 0, Cpu.end) + took;
    storeTick(cpu, 0, Cpu.end, end);
    machine.setTimer(end);
  }
  return now;
}

/** Which context runs next, or null if none can. */
export function dispatch(state: State): Context | null {
  const { machine, cpu } = state;
  // Each time round again has ended an environment, by an upcall that it could not be told of.
  for (;;) {
    let next = cpu.get(0, Cpu.current);
    let begins = false;
    if (next === 0) {
      const owner = cpu.get(0, Cpu.owner);
      next = owner === 0 ? 0 : runnerFor(state, owner);
      if (next === 0) {
        if (owner !== 0) endSlice(state);
        next = nextSlice(state);
        begins = true;
      }
      if (next === 0) {
        rest(state);
        return null;
      }
      cpu.put(0, Cpu.current, next);
    }
    let lives = enter(state, next);
    if (lives && begins) {
      pushSliceUpcall(state, next, Upcall.sliceBegin);
      lives = state.stateOf(next) === EnvState.ready;
    }
    if (lives) return machine.contexts.context(next);
  }
}

/** Goes on to the next position that can run and pay, and starts its slice; 0: there is none. */
function nextSlice(state: State): number {
  const { cpu, machine, config, info } = state;
  let position = info.get(0, Info.slicePosition);
  // Twice round at most: if all who could run owe too much, nobody waits while they pay.
  for (let round = 0; round < 2; round++) {
    let least = DEBT_MAX + 1;
    for (let n = 0; n < config.slices; n++) {
      position = position + 1 === config.slices ? 0 : position + 1;
      const owner = state.row(state.sliceOwner(position));
      const runner = owner < 0 ? 0 : runnerFor(state, owner);
      const turn = takeTurn(state, position, runner);
      if (turn > 0) {
        const end = machine.now() + turn;
        state.setInfo(Info.slicePosition, position);
        cpu.put(0, Cpu.owner, owner);
        cpu.put(0, Cpu.grace, 0);
        const stolen = machine.stolen();
        if (stolen > 0) storeTick(cpu, 0, Cpu.stolen, stolen);
        storeTick(cpu, 0, Cpu.end, end);
        machine.setTimer(end);
        return runner;
      }
      if (runner !== 0) least = Math.min(least, info.get(0, Info.sliceDebt + position));
    }
    if (least > DEBT_MAX) return 0;
    passTurns(state, Math.ceil((least + TURN_MIN) / config.sliceCycles) - 1);
  }
  return 0;
}

/** A position's turn has come: its length in cycles, or 0 if it is passed over. */
function takeTurn(state: State, position: number, runner: number): number {
  const { info, env, config } = state;
  const owed = info.get(0, Info.sliceDebt + position);
  const turn = config.sliceCycles - owed;
  const taken = runner !== 0 && turn >= TURN_MIN;
  // One too short is added to the next; one that nobody can use pays, and is gone.
  const left = taken ? 0 : runner === 0 ? Math.max(0, -turn) : -turn;
  if (left !== owed) info.put(0, Info.sliceDebt + position, left);
  if (taken) return turn;
  const excess = runner === 0 ? 0 : env.get(runner, Env.excess);
  if (excess > 0) env.put(runner, Env.excess, excess - 1);
  return 0;
}

/** As if so many turns of each position had come and gone. */
function passTurns(state: State, turns: number): void {
  const { info, config } = state;
  for (let position = 0; position < config.slices && turns > 0; position++) {
    const owed = info.get(0, Info.sliceDebt + position);
    const left = Math.max(0, owed - turns * config.sliceCycles);
    if (owed > 0) info.put(0, Info.sliceDebt + position, left);
  }
}

/**
 * Nobody can run: the timer is set to the first deadline that a position would run somebody for.
 */
function rest(state: State): void {
  const { machine, config } = state;
  let wake = NEVER;
  for (let position = 0; position < config.slices; position++) {
    const owner = state.row(state.sliceOwner(position));
    const at = owner < 0 ? 0 : endOfCalls(state, owner);
    if (at === 0 || state.stateOf(at) !== EnvState.sleeping) continue;
    const deadline = loadTick(state.env, at, Env.deadline);
    if (deadline !== 0) wake = Math.min(wake, deadline);
  }
  machine.setTimer(wake);
}

/** Loads the registers and the address space of who runs next. False: that was the end of it. */
function enter(state: State, env: number): boolean {
  const { machine, cpu, secret } = state;
  const installed = cpu.get(0, Cpu.installed);
  const at = secret.address(env, Private.registers);
  if (installed !== env) {
    if (installed !== 0 && machine.contexts.exists(installed)) saveMore(state, installed);
    machine.setAddressSpace({ root: state.env.get(env, Env.root), asid: env });
    machine.attribute(state.account.get(state.env.get(env, Env.account), Account.tenant) & 63);
    cpu.put(0, Cpu.installed, env);
    // Who gave the CPU away in its grace has overrun nothing, even if it gets it back.
    cpu.put(0, Cpu.told, 0);
  }
  const saved = secret.get(env, Private.saved);
  if (saved > 0) machine.contexts.restore(env, at, saved);
  return installed === env || pushPending(state, env);
}

/** A kernel call saved a few registers; leaving its environment, the rest must go too. */
function saveMore(state: State, env: number): void {
  const { secret, machine } = state;
  if (secret.get(env, Private.saved) !== REGISTERS_CALL) return;
  machine.contexts.save(env, secret.address(env, Private.registers), REGISTERS_YIELD);
  secret.put(env, Private.saved, REGISTERS_YIELD);
}

/** On the way in: frees the registers that the handler needs. */
export function leave(state: State, env: number, call: boolean): void {
  const count = call ? REGISTERS_CALL : REGISTERS_ALL;
  const { secret, machine } = state;
  machine.contexts.save(env, secret.address(env, Private.registers), count);
  secret.put(env, Private.saved, count);
}
