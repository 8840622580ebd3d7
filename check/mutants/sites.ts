/**
 * Mutation sites: every place of the kernel's source where it refuses, and every call that it makes
 * for its effect. Found in the syntax, so a new check or a new write is a site without anybody's
 * doing, in whatever kernel stands in the tree.
 *
 * `instrument` puts every site of a file behind a switch, so that one load of the kernel serves all
 * mutants: a switched-off refusal falls through, a switched-off write does not happen.
 */
import ts from 'typescript';

export type Kind = 'refusal' | 'write';

export interface Site {
  /** from 1, in the order of files and of places in them */
  readonly number: number;
  /** relative to the tree, with slashes */
  readonly file: string;
  readonly line: number;
  readonly kind: Kind;
  /** the function that it stands in */
  readonly within: string;
  /** its source, white space made single */
  readonly text: string;
  /** what names it as long as its text stays: file, function, text, and which of several */
  readonly key: string;
}

/** The sites of a file and its source with switches, lines kept. */
export interface Instrumented {
  readonly sites: readonly Site[];
  readonly code: string;
}

/** The global that instrumented code takes its two functions from: see switches.ts. */
export const SWITCHES = 'exoscopeMutants';

/** Calls made for what they charge or check: switching one off leaves the state as it is. */
const NO_WRITE: ReadonlySet<string> = new Set(['assert', 'work', 'attribute', 'moveRegisters']);
/** Loops in the form of a call: what they do stands in the function given to them. */
const LOOPS: ReadonlySet<string> = new Set(['forEach']);

interface Edit {
  readonly at: number;
  /** of what is put in at the same place, the outer first before a node, the inner after it */
  readonly rank: number;
  readonly text: string;
}

export function instrument(file: string, source: string, first = 1): Instrumented {
  const tree = ts.createSourceFile(file, source, ts.ScriptTarget.Latest, true);
  const sites: Site[] = [];
  const edits: Edit[] = [];
  const seen = new Map<string, number>();

  const put = (at: number, text: string, rank: number): void => {
    edits.push({ at, rank, text });
  };
  /** Text around a node, outside of what is put around the nodes in it. */
  const around = (node: ts.Node, before: string, after: string): void => {
    put(node.getStart(tree), before, edits.length);
    put(node.getEnd(), after, -edits.length);
  };
  const site = (kind: Kind, node: ts.Node, what: ts.Node = node): number => {
    const number = first + sites.length;
    const start = tree.getLineAndCharacterOfPosition(node.getStart(tree));
    const [within, text] = [nameOf(node), what.getText(tree).replace(/\s+/g, ' ')];
    const base = `${file} ${within}: ${text}`;
    const ordinal = (seen.get(base) ?? 0) + 1;
    seen.set(base, ordinal);
    const key = ordinal === 1 ? base : `${base} #${ordinal}`;
    sites.push({ number, file, line: start.line + 1, kind, within, text, key });
    return number;
  };

  const visit = (node: ts.Node): void => {
    if (ts.isIfStatement(node)) {
      const only = single(node.thenStatement);
      if (only !== null && ts.isReturnStatement(only) && refuses(only, node.expression)) {
        // The condition counts, its effects included: only what follows from it is switched off.
        const number = site('refusal', node, node.elseStatement === undefined ? node : only);
        around(node.expression, '(', `) && $on(${number})`);
        [node.expression, only, node.elseStatement].forEach((part) => {
          if (part === only) ts.forEachChild(only, visit);
          else if (part !== undefined) visit(part);
        });
        return;
      }
    } else if (ts.isReturnStatement(node) && refuses(node, guardOf(node))) {
      const number = site('refusal', node);
      put(node.getStart(tree), `if ($on(${number})) `, edits.length);
    } else if (ts.isConditionalExpression(node)) {
      const [yes, no] = [node.whenTrue, node.whenFalse].map((arm) => isRefusal(arm, node));
      if (yes !== no) {
        const number = site('refusal', node);
        around(node.condition, '(', yes ? `) && $on(${number})` : `) || !$on(${number})`);
      }
    } else if (ts.isExpressionStatement(node) && ts.isCallExpression(node.expression)) {
      const callee = calleeOf(node.expression);
      if (!NO_WRITE.has(callee) && !LOOPS.has(callee)) {
        const number = site('write', node.expression);
        put(node.getStart(tree), `$on(${number}) && `, edits.length);
      }
    } else if (ts.isCallExpression(node) && !ts.isExpressionStatement(node.parent)) {
      const instead = unwritten(node, tree);
      if (instead !== null) {
        const number = site('write', node);
        around(node, `($on(${number}) ? `, ` : ${instead})`);
      }
    }
    if (ts.isBlock(node) && (isLoop(node.parent) || ts.isFunctionLike(node.parent))) {
      put(node.getStart(tree) + 1, ' $beat();', 0);
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);

  edits.sort((a, b) => a.at - b.at || a.rank - b.rank);
  let [code, from] = [`const { $on, $beat } = globalThis.${SWITCHES}; `, 0];
  for (const { at, text } of edits) {
    code += source.slice(from, at) + text;
    from = at;
  }
  return { sites, code: code + source.slice(from) };
}

/** The statement that stands alone in a branch, or null. */
function single(statement: ts.Statement): ts.Statement | null {
  if (!ts.isBlock(statement)) return statement;
  return statement.statements.length === 1 ? (statement.statements[0] ?? null) : null;
}

/** The condition under which a statement is reached, if it stands in a branch of an if. */
function guardOf(statement: ts.Statement): ts.Expression | null {
  const { parent } = statement;
  const branch = ts.isBlock(parent) ? parent : statement;
  return ts.isIfStatement(branch.parent) ? branch.parent.expression : null;
}

/** Whether a return refuses: by its value, or by handing on what its condition found refused. */
function refuses({ expression }: ts.ReturnStatement, guard: ts.Expression | null): boolean {
  if (expression === undefined || guard === null) return false;
  if (isRefusal(expression)) return true;
  if (expression.kind === ts.SyntaxKind.FalseKeyword) return true;
  if (!ts.isIdentifier(expression)) return false;
  const [name, tested] = [expression.text, guard.getText()];
  return (
    tested === `${name}.status !== Status.ok` ||
    tested === `${name} !== Status.ok` ||
    tested === `!Array.isArray(${name})`
  );
}

/**
 * refuse(...), a status other than ok, an answer with one, or -1 for nothing of that name: but only
 * as what is returned, for elsewhere -1 is a number like any other.
 */
function isRefusal(node: ts.Expression, whole: ts.Expression = node): boolean {
  if (ts.isCallExpression(node)) return calleeOf(node) === 'refuse';
  if (ts.isPropertyAccessExpression(node)) {
    return node.expression.getText() === 'Status' && node.name.text !== 'ok';
  }
  if (ts.isPrefixUnaryExpression(node)) {
    return node.getText() === '-1' && ts.isReturnStatement(whole.parent);
  }
  if (!ts.isObjectLiteralExpression(node)) return false;
  return node.properties.some(
    (property) =>
      ts.isPropertyAssignment(property) &&
      property.name.getText() === 'status' &&
      property.initializer.getText() !== 'Status.ok',
  );
}

/** What a write in the middle of an expression comes to when it does not happen; null: no write. */
function unwritten(call: ts.CallExpression, tree: ts.SourceFile): string | null {
  const callee = call.expression;
  if (!ts.isPropertyAccessExpression(callee)) return null;
  const [row, column, value] = call.arguments.map((argument) => argument.getText(tree));
  const name = callee.name.text;
  if (name === 'storeUser') return 'true';
  if (name !== 'add' || value === undefined) return null;
  return `${callee.expression.getText(tree)}.get(${row}, ${column}) + (${value})`;
}

function calleeOf({ expression }: ts.CallExpression): string {
  if (ts.isPropertyAccessExpression(expression)) return expression.name.text;
  return ts.isIdentifier(expression) ? expression.text : expression.getText();
}

const isLoop = (node: ts.Node): boolean => ts.isIterationStatement(node, false);

/** The named function around a node, or the constant at the top that it is of. */
function nameOf(node: ts.Node): string {
  for (let at = node.parent; !ts.isSourceFile(at); at = at.parent) {
    if (ts.isConstructorDeclaration(at)) return 'constructor';
    if (ts.isFunctionDeclaration(at) || ts.isMethodDeclaration(at) || ts.isAccessor(at)) {
      if (at.name !== undefined) return at.name.getText();
    }
    if (ts.isVariableStatement(at) && ts.isSourceFile(at.parent)) {
      return at.declarationList.declarations[0]?.name.getText() ?? 'top';
    }
  }
  return 'top';
}
