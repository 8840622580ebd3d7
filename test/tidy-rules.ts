/**
 * The rules that test/tidy.test.ts holds the source text to: who may import whom, which words are
 * banned where and what to use instead. Each rule is a plain function from files to violations, so
 * that it can be tried on planted bad text: a check that cannot fail is worse than none.
 *
 * Rules about code look at the syntax tree, or at the text with comments, strings and templates
 * blanked; so a comment may talk about what the code may not do.
 */
import ts from 'typescript';

export interface SourceFile {
  readonly path: string; // from the root of the project, with slashes
  readonly text: string;
}

export interface Violation {
  readonly path: string;
  readonly line: number; // from 1
  readonly rule: string;
  readonly text: string;
}

export type Rule = (files: readonly SourceFile[]) => Violation[];

/** Files that are started rather than imported. */
export const ENTRY_POINTS: ReadonlySet<string> = new Set([
  'check/mutants/main.ts', // a command
  'check/mutants/runner.ts', // vitest loads it
  'check/mutants/setup.ts', // vitest loads it
  'check/lockstep/main.ts', // npm run lockstep
  'lab/cli.ts', // the command line
  'lab/readme.ts', // puts into the README what its commands print
  'lab/worker.ts', // a worker of the pool that runs sweeps
  'lab/attacks/worker.ts', // the thread in which attacks run
]);

const COLUMNS_MAX = 100;
const BELOW_LAB = ['machine', 'kernel', 'libos']; // runs in a browser too
const ABOVE = ['lab', 'check', 'examples'];
const ABI = 'kernel/abi.ts';
const SPECIFICATION = 'check/specification/';
const ABSTRACTION = 'check/lockstep/abstraction.ts';
const USER_PORT = 'machine/user-port.ts';

const folderOf = (path: string): string => path.slice(0, path.indexOf('/'));
const isIn = (path: string, ...folders: string[]): boolean => folders.includes(folderOf(path));

// -------------------------------------------------------------------------------------- imports

/** Imports point down: examples, lab, check → libos → kernel/abi → machine. */
export const importTable: Rule = (files) =>
  files.flatMap((file) =>
    importsOf(file).flatMap((use) => {
      const wrong = whyNot(file.path, use);
      if (wrong === null) return [];
      return [at(file, use.position, 'imports', `${use.specifier}: ${wrong}`)];
    }),
  );

function whyNot(from: string, use: Import): string | null {
  if (!isIn(from, ...BELOW_LAB, ...ABOVE)) return null; // tests, benches, configuration
  const to = use.path;

  if (from.startsWith(SPECIFICATION)) {
    if (to === ABI || to?.startsWith(SPECIFICATION) === true) return null;
    return `${SPECIFICATION} shares the numbers of ${ABI}, and imports nothing else`;
  }
  if (from === ABSTRACTION && to?.startsWith(SPECIFICATION) === true && !use.typeOnly) {
    return `${ABSTRACTION} shares no code with the specification, types only`;
  }
  if (isIn(from, ...ABOVE)) {
    if (to === null || isIn(to, ...BELOW_LAB, ...ABOVE)) return null;
    return `${folderOf(from)}/ imports packages and what ships with it`;
  }
  if (to === null) {
    return use.specifier.startsWith('node:')
      ? 'below lab/ there is no Node: host files are behind an interface'
      : 'below lab/ there are no packages';
  }
  switch (folderOf(from)) {
    case 'machine':
      return isIn(to, 'machine') ? null : 'machine/ imports machine/ only';
    case 'kernel':
      if (from === ABI) {
        return use.typeOnly && isIn(to, 'machine') ? null : `${ABI} imports types of machine/ only`;
      }
      return isIn(to, 'kernel', 'machine') ? null : 'kernel/ imports kernel/ and machine/ only';
    default:
      if (isIn(to, 'libos') || to === ABI || to === USER_PORT) return null;
      return `libos/ imports libos/, ${ABI} and ${USER_PORT} only`;
  }
}

/** A supervisor names Machine, never the physical one: then it runs in a virtual one too. */
export const kernelNamesMachine: Rule = (files) =>
  matches(
    files.filter((file) => isIn(file.path, 'kernel')),
    codeOf,
    /\bPhysicalMachine\b/g,
    'physical-machine',
    'kernel/ names Machine',
  );

/** No file that nobody imports: it is dead, or it is an entry point and belongs in the list. */
export const noDeadFiles: Rule = (files) => {
  const imported = new Set(
    files.flatMap((file) =>
      importsOf(file).flatMap((use) => (use.path === file.path ? [] : [use.path])),
    ),
  );
  return files
    .filter((file) => isIn(file.path, ...BELOW_LAB, 'lab', 'check'))
    .filter((file) => !imported.has(file.path) && !ENTRY_POINTS.has(file.path))
    .map((file) => at(file, 0, 'dead-file', 'no other file imports this one'));
};

interface Import {
  readonly specifier: string;
  readonly path: string | null; // from the root; null for a package
  readonly typeOnly: boolean;
  readonly position: number;
}

/** Every way to name a module: import, export from, import(..) as a call and as a type. */
function importsOf(file: SourceFile): Import[] {
  const found: Import[] = [];
  const add = (module: ts.Node | undefined, typeOnly: boolean): void => {
    if (module === undefined) return;
    const specifier = ts.isStringLiteralLike(module) ? module.text : module.getText();
    const path = specifier.startsWith('.') ? resolve(file.path, specifier) : null;
    found.push({ specifier, path, typeOnly, position: module.getStart() });
  };
  walk(parsed(file), (node) => {
    if (ts.isImportDeclaration(node)) {
      const typeOnly = node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword;
      add(node.moduleSpecifier, typeOnly);
    } else if (ts.isExportDeclaration(node)) {
      add(node.moduleSpecifier, node.isTypeOnly);
    } else if (ts.isExternalModuleReference(node)) {
      add(node.expression, false);
    } else if (ts.isImportTypeNode(node)) {
      add(ts.isLiteralTypeNode(node.argument) ? node.argument.literal : node.argument, true);
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false);
    }
  });
  return found;
}

function resolve(from: string, specifier: string): string {
  const parts = from.split('/').slice(0, -1);
  for (const part of specifier.split('/')) {
    if (part === '..' && parts.length > 0 && parts.at(-1) !== '..') parts.pop();
    else if (part !== '.') parts.push(part);
  }
  return parts.join('/');
}

// ----------------------------------------------------------------------------------------- words

/** What the host knows and a simulation must not: names, and what to use instead. */
const HOST_NAMES: Readonly<Record<string, string>> = {
  Date: 'time is a Tick',
  performance: 'time is a Tick',
  setTimeout: 'the future is the event queue',
  setInterval: 'the future is the event queue',
  setImmediate: 'the future is the event queue',
  queueMicrotask: 'the future is the event queue',
  Promise: 'user code is generators; the future is the event queue',
  process: 'this runs in a browser too',
  Buffer: 'bytes are a Uint8Array',
  globalThis: 'no global state',
};

/** Below lab/ no host clock, chance, timer or Node global. A local of the same name may be. */
export const noHostNames: Rule = (files) =>
  files
    .filter((file) => isIn(file.path, ...BELOW_LAB))
    .flatMap((file) => {
      const found: Violation[] = [];
      walk(parsed(file), (node) => {
        if (ts.isPropertyAccessExpression(node) && node.getText() === 'Math.random') {
          const text = 'Math.random: use the seeded generator';
          found.push(at(file, node.getStart(), 'host-name', text));
        }
        if (!ts.isIdentifier(node) || !Object.hasOwn(HOST_NAMES, node.text)) return;
        if (isMemberName(node) || isDeclaredAround(node)) return;
        const instead = HOST_NAMES[node.text] ?? '';
        found.push(at(file, node.getStart(), 'host-name', `${node.text}: ${instead}`));
      });
      return found;
    });

/** The `x` of `a.x`, `{ x: 1 }`, or of a declared member: a name, but not of a variable. */
function isMemberName(node: ts.Identifier): boolean {
  const { parent } = node;
  return (
    (ts.isPropertyAccessExpression(parent) && parent.name === node) ||
    (ts.isQualifiedName(parent) && parent.right === node) ||
    (ts.isBindingElement(parent) && parent.propertyName === node) ||
    (ts.isImportSpecifier(parent) && parent.propertyName === node) ||
    ((ts.isPropertyAssignment(parent) ||
      ts.isClassElement(parent) ||
      ts.isTypeElement(parent) ||
      ts.isNamedTupleMember(parent)) &&
      parent.name === node)
  );
}

/** True if a block, function or file around `node` declares its name. */
function isDeclaredAround(node: ts.Identifier): boolean {
  for (let scope: ts.Node = node.parent; ; scope = scope.parent) {
    if (declares(scope, node.text)) return true;
    if (ts.isSourceFile(scope)) return false;
  }
}

function declares(scope: ts.Node, name: string): boolean {
  const bound = (binding: ts.BindingName): boolean =>
    ts.isIdentifier(binding)
      ? binding.text === name
      : binding.elements.some((element) => ts.isBindingElement(element) && bound(element.name));
  const named = (declaration: ts.NamedDeclaration): boolean =>
    declaration.name !== undefined &&
    ts.isIdentifier(declaration.name) &&
    declaration.name.text === name;
  const list = (node: ts.Node): boolean =>
    ts.isVariableDeclarationList(node) && node.declarations.some((one) => bound(one.name));

  if (ts.isFunctionLike(scope)) return scope.parameters.some((parameter) => bound(parameter.name));
  if (ts.isCatchClause(scope)) {
    return scope.variableDeclaration !== undefined && bound(scope.variableDeclaration.name);
  }
  if (ts.isForStatement(scope) || ts.isForOfStatement(scope) || ts.isForInStatement(scope)) {
    return scope.initializer !== undefined && list(scope.initializer);
  }
  if (!ts.isBlock(scope) && !ts.isSourceFile(scope) && !ts.isCaseOrDefaultClause(scope)) {
    return false;
  }
  return scope.statements.some((statement) => {
    if (ts.isVariableStatement(statement)) return list(statement.declarationList);
    if (ts.isImportDeclaration(statement)) {
      const clause = statement.importClause;
      if (clause === undefined) return false;
      if (named(clause)) return true;
      const bindings = clause.namedBindings;
      if (bindings === undefined) return false;
      return ts.isNamespaceImport(bindings) ? named(bindings) : bindings.elements.some(named);
    }
    return (
      (ts.isFunctionDeclaration(statement) ||
        ts.isClassDeclaration(statement) ||
        ts.isInterfaceDeclaration(statement) ||
        ts.isTypeAliasDeclaration(statement)) &&
      named(statement)
    );
  });
}

/** Ways around the type checker, in code. */
export const noEvasions: Rule = (files) =>
  matches(
    files,
    codeOf,
    /:\s*any\b|\bas\s+any\b|\bas\s+unknown\s+as\b/g,
    'evasion',
    'take `unknown` and a guard that names it',
  );

// Spelt so that the patterns do not find themselves.
const MARKS = /@ts-[i]gnore|@ts-n[o]check|@ts-[e]xpect-error|\bT[O]DO\b|\bF[I]XME\b|\bX{3}\b/g;

/** Marks of what is unfinished or hushed up, comments and strings included. */
export const noMarks: Rule = (files) =>
  matches(files, (file) => file.text, MARKS, 'mark', 'do it, or write down why not in docs/');

/** A libOS that asks which mode it runs in would make the comparison of modes worthless. */
export const noModes: Rule = (files) =>
  matches(
    files.filter((file) => isIn(file.path, 'libos')),
    codeOf,
    /\bmode\s*[!=]==|\bif\s*\(\s*!?\s*mode\b|\bswitch\s*\(\s*mode\b/g,
    'mode',
    'no libOS contains `if (mode)`; if this is another mode, give it another name',
  );

// ---------------------------------------------------------------------------------------- layout

/** A file opens with what it is for. */
export const opensWithComment: Rule = (files) =>
  files
    .filter((file) => isIn(file.path, ...BELOW_LAB, 'lab'))
    .filter((file) => !/^(#!.*\n)?(\/\*\*|\/\/)/.test(file.text))
    .map((file) => at(file, 0, 'opening', 'a file opens with a comment: what it is for'));

export const lineLength: Rule = (files) =>
  files
    .filter((file) => isIn(file.path, ...BELOW_LAB, 'lab', 'check'))
    .flatMap((file) =>
      file.text.split('\n').flatMap((text, index) => {
        const columns = [...text].length;
        if (columns <= COLUMNS_MAX) return [];
        const path = file.path;
        return [{ path, line: index + 1, rule: 'columns', text: `${columns} > ${COLUMNS_MAX}` }];
      }),
    );

export const RULES: Readonly<Record<string, Rule>> = {
  'imports point down': importTable,
  'kernel/ never names PhysicalMachine': kernelNamesMachine,
  'every file is imported, or is an entry point': noDeadFiles,
  'no host clock, chance, timer or global below lab/': noHostNames,
  'nothing gets around the type checker': noEvasions,
  'nothing is marked unfinished': noMarks,
  'no libOS asks for its mode': noModes,
  'a file opens with what it is for': opensWithComment,
  'lines fit': lineLength,
};

export const report = (violations: readonly Violation[]): string[] =>
  violations.map(({ path, line, rule, text }) => `${path}:${line} ${rule} ${text}`);

// --------------------------------------------------------------------------------------- parsing

const trees = new WeakMap<SourceFile, ts.SourceFile>();

function parsed(file: SourceFile): ts.SourceFile {
  let tree = trees.get(file);
  if (tree === undefined) {
    tree = ts.createSourceFile(file.path, file.text, ts.ScriptTarget.ES2022, true);
    trees.set(file, tree);
  }
  return tree;
}

function walk(node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node);
  ts.forEachChild(node, (child) => walk(child, visit));
}

/** The text with everything blanked but code; positions and lines stay. */
function codeOf(file: SourceFile): string {
  const blank = file.text.replace(/[^\n]/g, ' ');
  const pieces: string[] = [];
  let done = 0;
  const keep = (node: ts.Node): void => {
    if (ts.isJSDoc(node)) return;
    const children = node.getChildren();
    if (children.length > 0) return children.forEach(keep);
    if (ts.isStringLiteralLike(node) || ts.isTemplateLiteralToken(node)) return;
    if (ts.isRegularExpressionLiteral(node)) return;
    pieces.push(blank.slice(done, node.getStart()), node.getText());
    done = node.getEnd();
  };
  keep(parsed(file));
  pieces.push(blank.slice(done));
  return pieces.join('');
}

function matches(
  files: readonly SourceFile[],
  textOf: (file: SourceFile) => string,
  pattern: RegExp,
  rule: string,
  instead: string,
): Violation[] {
  return files.flatMap((file) =>
    Array.from(textOf(file).matchAll(pattern), (match) =>
      at(file, match.index, rule, `"${match[0]}": ${instead}`),
    ),
  );
}

function at(file: SourceFile, position: number, rule: string, text: string): Violation {
  const line = file.text.slice(0, position).split('\n').length;
  return { path: file.path, line, rule, text };
}
