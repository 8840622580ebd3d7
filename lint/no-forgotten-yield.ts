/**
 * exoscope/no-forgotten-yield: user code that is called but never handed to the hart.
 *
 * User code is written as generators (`Op<T>`). Calling one runs nothing: its body runs only when
 * `yield*` delegates to it. And a user-port primitive such as `port.store32(va, v)` answers
 * `undefined` when a trap is pending, which only `yield* port.fault()` resolves. Both mistakes
 * compile. The hart notices the second at the next access and the first never; this rule notices
 * both in the editor.
 *
 * A generator that is stored, passed on or returned counts as handled: where it goes is the
 * writer's business. The rule asks about the place of each call only, and follows no data.
 */
import { AST_NODE_TYPES, ESLintUtils } from '@typescript-eslint/utils';
import type { ParserServicesWithTypeInformation, TSESTree } from '@typescript-eslint/utils';
import ts from 'typescript';

/** What becomes of a value at the place where it is made. */
type Fate =
  | 'delegated' // the operand of `yield*`
  | 'kept' // stored, passed on, returned: somebody else has it now
  | 'iterated' // by for-of, or a spread: right for a plain generator, wrong for an Op
  | 'yielded' // by a bare `yield`: the generator itself, not what it does
  | 'dropped' // nobody ever sees it
  | 'consumed'; // read as a number, a condition, a text

const PORT_CLASS = 'UserPort';
const DRIVING = new Set(['next', 'return', 'throw']); // running a generator by hand

export const noForgottenYield = ESLintUtils.RuleCreator.withoutDocs({
  meta: {
    type: 'problem',
    docs: { description: 'user code must be run with `yield*`, and a pending trap taken' },
    schema: [],
    messages: {
      dropped: 'this call runs nothing: write `yield* {{call}}(..)`',
      yielded: '`yield` hands over the generator, not its traps: write `yield*`',
      consumed: 'this is a generator, not its result: write `(yield* {{call}}(..))`',
      iterated: 'iterating an Op takes its traps away from the hart: write `yield* {{call}}(..)`',
      lostTrap: 'the trap would be lost; write `{{call}}(..) ?? (yield* port.fault())`',
    },
  },
  defaultOptions: [],
  create(context) {
    const services = ESLintUtils.getParserServices(context);
    const typeOf = (node: TSESTree.Node): ts.Type => services.getTypeAtLocation(node);

    return {
      CallExpression(node): void {
        const call = context.sourceCode.getText(node.callee);
        const type = typeOf(node);
        if (isPortPrimitive(services, node, type)) {
          if (losesTrap(services, node)) {
            context.report({ node, messageId: 'lostTrap', data: { call } });
          }
          return;
        }
        if (!parts(type).some(isGenerator)) return;

        const fate = fateOf(services, node);
        if (fate === 'delegated' || fate === 'kept') return;
        if (fate === 'yielded') return; // reported below, for calls and variables alike
        if (fate === 'iterated' && !parts(type).some(isOp)) return;
        context.report({ node, messageId: fate, data: { call } });
      },

      YieldExpression(node): void {
        if (node.delegate || node.argument === null) return;
        if (parts(typeOf(node.argument)).some(isGenerator)) {
          context.report({ node, messageId: 'yielded' });
        }
      },
    };
  },
});

/** Follows a value outwards through the expressions that hand it on unchanged. */
function fateOf(services: ParserServicesWithTypeInformation, node: TSESTree.Node): Fate {
  const parent = node.parent;
  if (parent === undefined) return 'dropped';
  const outwards = (): Fate => fateOf(services, parent);

  switch (parent.type) {
    case AST_NODE_TYPES.ChainExpression:
    case AST_NODE_TYPES.TSAsExpression:
    case AST_NODE_TYPES.TSNonNullExpression:
    case AST_NODE_TYPES.TSSatisfiesExpression:
    case AST_NODE_TYPES.TSTypeAssertion:
      return outwards();
    case AST_NODE_TYPES.ConditionalExpression:
      return parent.test === node ? 'consumed' : outwards();
    case AST_NODE_TYPES.LogicalExpression:
      // On the left only `maybe?.() ?? other` makes sense: a generator itself is never falsy.
      if (parent.right === node) return outwards();
      return mayBeAbsent(services, node) ? outwards() : 'consumed';
    case AST_NODE_TYPES.SequenceExpression:
      return parent.expressions.at(-1) === node ? outwards() : 'dropped';

    case AST_NODE_TYPES.ExpressionStatement:
      return 'dropped';
    case AST_NODE_TYPES.UnaryExpression:
      return parent.operator === 'void' ? 'dropped' : 'consumed';
    case AST_NODE_TYPES.YieldExpression:
      return parent.delegate ? 'delegated' : 'yielded';

    case AST_NODE_TYPES.ReturnStatement:
      return returnsVoid(services, enclosingFunction(parent)) ? 'dropped' : 'kept';
    case AST_NODE_TYPES.ArrowFunctionExpression:
      return returnsVoid(services, parent) ? 'dropped' : 'kept';

    case AST_NODE_TYPES.VariableDeclarator:
      return 'kept';
    case AST_NODE_TYPES.AssignmentExpression:
      return ['=', '??=', '||=', '&&='].includes(parent.operator) ? 'kept' : 'consumed';
    case AST_NODE_TYPES.AssignmentPattern: // a default value
    case AST_NODE_TYPES.PropertyDefinition:
    case AST_NODE_TYPES.ArrayExpression:
    case AST_NODE_TYPES.ExportDefaultDeclaration:
      return 'kept';
    case AST_NODE_TYPES.Property:
      return parent.value === node ? 'kept' : 'consumed';
    case AST_NODE_TYPES.CallExpression:
    case AST_NODE_TYPES.NewExpression:
      return parent.callee === node ? 'consumed' : 'kept';

    case AST_NODE_TYPES.ForOfStatement:
      return parent.right === node ? 'iterated' : 'consumed';
    case AST_NODE_TYPES.SpreadElement:
      return 'iterated';
    case AST_NODE_TYPES.MemberExpression: {
      const name = parent.property.type === AST_NODE_TYPES.Identifier ? parent.property.name : '';
      if (parent.object !== node) return 'consumed';
      return DRIVING.has(name) && !parent.computed ? 'kept' : 'iterated';
    }
    default:
      return 'consumed'; // arithmetic, comparison, template, condition, await, throw
  }
}

/** A call of `method(..): number | undefined` that a class named UserPort declares. */
function isPortPrimitive(
  services: ParserServicesWithTypeInformation,
  node: TSESTree.CallExpression,
  type: ts.Type,
): boolean {
  if (node.callee.type !== AST_NODE_TYPES.MemberExpression) return false;
  const all = parts(type);
  if (!all.some((part) => (part.flags & ts.TypeFlags.NumberLike) !== 0)) return false;
  if (!all.some(isAbsent)) return false;
  const checker = services.program.getTypeChecker();
  const declaration = checker.getResolvedSignature(services.esTreeNodeToTSNodeMap.get(node))
    ?.declaration?.parent;
  if (declaration === undefined) return false;
  return (
    (ts.isClassDeclaration(declaration) || ts.isInterfaceDeclaration(declaration)) &&
    declaration.name?.text === PORT_CLASS
  );
}

/** True where the `undefined` that says "a trap is pending" reaches nobody, or is papered over. */
function losesTrap(
  services: ParserServicesWithTypeInformation,
  node: TSESTree.CallExpression,
): boolean {
  const parent = node.parent;
  if (parent.type === AST_NODE_TYPES.LogicalExpression && parent.left === node) {
    return parent.right.type === AST_NODE_TYPES.Literal; // `port.load32(va) ?? 0`
  }
  return fateOf(services, node) === 'dropped';
}

/** True if what the function returns is thrown away: its caller expects `() => void`. */
function returnsVoid(
  services: ParserServicesWithTypeInformation,
  node: TSESTree.Node | undefined,
): boolean {
  if (
    node?.type !== AST_NODE_TYPES.ArrowFunctionExpression &&
    node?.type !== AST_NODE_TYPES.FunctionExpression
  ) {
    return false;
  }
  const place = services.esTreeNodeToTSNodeMap.get(node);
  if (!ts.isExpression(place)) return false; // a method: its own signature says what it returns
  const expected = services.program.getTypeChecker().getContextualType(place);
  const signatures = expected?.getCallSignatures() ?? [];
  return (
    signatures.length > 0 &&
    signatures.every((s) => (s.getReturnType().flags & ts.TypeFlags.Void) !== 0)
  );
}

function enclosingFunction(node: TSESTree.Node): TSESTree.Node | undefined {
  let at: TSESTree.Node | undefined = node.parent;
  while (
    at !== undefined &&
    at.type !== AST_NODE_TYPES.ArrowFunctionExpression &&
    at.type !== AST_NODE_TYPES.FunctionExpression &&
    at.type !== AST_NODE_TYPES.FunctionDeclaration
  ) {
    at = at.parent;
  }
  return at;
}

const parts = (type: ts.Type): readonly ts.Type[] =>
  type.isUnionOrIntersection() ? type.types.flatMap(parts) : [type];

const isAbsent = (type: ts.Type): boolean =>
  (type.flags & (ts.TypeFlags.Undefined | ts.TypeFlags.Null)) !== 0;

const mayBeAbsent = (services: ParserServicesWithTypeInformation, node: TSESTree.Node): boolean =>
  parts(services.getTypeAtLocation(node)).some(isAbsent);

/**
 * The library's Generator, or a class that has all of one. Iterators of collections have `return`
 * and `throw` too, but optional ones.
 */
function isGenerator(type: ts.Type): boolean {
  const name = type.symbol?.name;
  if (name === 'AsyncGenerator') return false;
  return (
    name === 'Generator' ||
    ['next', 'return', 'throw'].every((method) => {
      const property = type.getProperty(method);
      return property !== undefined && (property.flags & ts.SymbolFlags.Optional) === 0;
    })
  );
}

/** An Op is resumed with nothing: its third type argument is `void`; a plain one's is `unknown`. */
function isOp(type: ts.Type): boolean {
  if (type.aliasSymbol?.name === 'Op') return true;
  if (!isGenerator(type) || type.symbol.name !== 'Generator') return isGenerator(type);
  const resumed = (type as ts.TypeReference).typeArguments?.[2];
  return resumed !== undefined && (resumed.flags & ts.TypeFlags.Void) !== 0;
}
