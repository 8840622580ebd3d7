/**
 * Cost profiles: what each primitive event of the machine costs in cycles. Counts are the results;
 * cycles are counts times one of these profiles, and every mode is charged by the same numbers.
 * There is no "cost of a system call" and no "cost of an exit" here: those are sums of a trap, the
 * registers that are really saved, and the table words that are really read.
 */

export interface Cost {
  /** cycles, or bytes per cycle where the name says so */
  readonly value: number;
  /** where the number comes from; "choice" is a modelling choice, to be swept */
  readonly source: string;
}

export interface CostProfile {
  readonly name: string;
  /** one user load or store that hits the TLB; one supervisor load or store */
  readonly reference: Cost;
  /** instructions around each counted supervisor reference: address, test, branch */
  readonly instructionsPerReference: Cost;
  /** one reference of the page-table walker */
  readonly walkReference: Cost;
  /** hardware part of a trap: flush, privilege change, cause and address into registers */
  readonly trapEntry: Cost;
  /** sret, which serialises the pipeline */
  readonly trapReturn: Cost;
  /** a procedure call and its return */
  readonly procedureCall: Cost;
  /** one read or write of a control register, a guest's included */
  readonly csr: Cost;
  /** one sfence.vma or hfence, without the misses that follow */
  readonly fence: Cost;
  /** one uncached device-register access */
  readonly mmio: Cost;
  readonly copyBytesPerCycle: Cost;
  readonly zeroBytesPerCycle: Cost;
  /** disk: fixed part of a request, cycles */
  readonly diskAccess: Cost;
  /** disk: each 4 KiB block moved */
  readonly diskBlock: Cost;
  /** disk: one flush of the volatile cache */
  readonly diskFlush: Cost;
}

const CLOCK = 'at 1 GHz, 1 cycle = 1 ns';

/** A small in-order RISC-V core with the hypervisor extension. The default. */
export const RISCV: CostProfile = {
  name: 'riscv-inorder',
  reference: { value: 1, source: 'choice: L1 hit, one load or store a cycle, pipelined' },
  instructionsPerReference: { value: 3, source: 'choice: address, mask or compare, branch' },
  walkReference: { value: 20, source: 'choice: L2 hit; sweep 10, 20, 50, 200' },
  trapEntry: { value: 30, source: 'choice: pipeline drain and vector fetch, in-order core' },
  trapReturn: { value: 20, source: 'choice: sret drains the pipeline' },
  procedureCall: { value: 4, source: 'Unikraft (EuroSys 2021), table 1: function call' },
  csr: { value: 4, source: 'choice: serialising register access, in-order core' },
  fence: { value: 40, source: 'choice: local sfence.vma, drain and set scan' },
  mmio: { value: 100, source: 'choice: one uncached device access over the interconnect' },
  copyBytesPerCycle: { value: 4, source: 'choice: one 8-byte load and one store a word' },
  zeroBytesPerCycle: { value: 8, source: 'choice: one 8-byte store a cycle' },
  diskAccess: { value: 20_000, source: `choice: flash access 20 us ${CLOCK}` },
  diskBlock: { value: 2_000, source: `choice: 2 GB/s transfer ${CLOCK}` },
  diskFlush: { value: 50_000, source: `choice: cache flush 50 us ${CLOCK}` },
};

/** An x86-like server core. Trap and control-register costs follow published round trips. */
export const X86: CostProfile = {
  name: 'x86-2016',
  reference: { value: 1, source: 'choice: L1 hit, pipelined' },
  instructionsPerReference: { value: 1, source: 'choice: three instructions, superscalar' },
  walkReference: { value: 20, source: 'choice: L2 hit; sweep 10, 20, 50, 200' },
  trapEntry: { value: 80, source: 'Unikraft (EuroSys 2021), table 1: null call 154, about half' },
  trapReturn: { value: 70, source: 'the same 154, the other half' },
  procedureCall: { value: 4, source: 'Unikraft (EuroSys 2021), table 1: function call' },
  csr: { value: 44, source: 'VMCS field write on Core 2 (from memory; Adams and Agesen era)' },
  fence: { value: 100, source: 'choice: invlpg' },
  mmio: { value: 250, source: 'choice: one uncached device access over PCIe, posted' },
  copyBytesPerCycle: { value: 8, source: 'warm 4 KiB page copy about 500 cycles' },
  zeroBytesPerCycle: { value: 16, source: 'choice: rep stosb, warm' },
  diskAccess: { value: 60_000, source: 'choice: 20 us at 3 GHz' },
  diskBlock: { value: 6_000, source: 'choice: 2 GB/s at 3 GHz' },
  diskFlush: { value: 150_000, source: 'choice: 50 us at 3 GHz' },
};

export const PROFILES: readonly CostProfile[] = [RISCV, X86];

/** The bare numbers of a profile, for the hot paths. */
export type Cycles = { readonly [K in Exclude<keyof CostProfile, 'name'>]: number };

export function cyclesOf(profile: CostProfile): Cycles {
  return {
    reference: profile.reference.value,
    instructionsPerReference: profile.instructionsPerReference.value,
    walkReference: profile.walkReference.value,
    trapEntry: profile.trapEntry.value,
    trapReturn: profile.trapReturn.value,
    procedureCall: profile.procedureCall.value,
    csr: profile.csr.value,
    fence: profile.fence.value,
    mmio: profile.mmio.value,
    copyBytesPerCycle: profile.copyBytesPerCycle.value,
    zeroBytesPerCycle: profile.zeroBytesPerCycle.value,
    diskAccess: profile.diskAccess.value,
    diskBlock: profile.diskBlock.value,
    diskFlush: profile.diskFlush.value,
  };
}
