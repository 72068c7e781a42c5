import assert from "node:assert/strict";
import { missingTools, skippable, type Tool } from "../../tests/prerequisites.ts";
import { completion } from "./completion.ts";
import type { Shell } from "./commands.ts";

/** What is typed, and words that must and must not be offered then. */
interface Case {
  readonly typed: string;
  readonly offers: readonly string[];
  readonly lacks?: readonly string[];
}

const CASES: readonly Case[] = [
  { typed: "flanneld ", offers: ["cleanup", "docker-opts", "completion", "man"], lacks: ["bash"] },
  { typed: "flanneld cl", offers: ["cleanup"], lacks: ["man"] },
  { typed: "flanneld --etcd-", offers: ["--etcd-api", "--etcd-prefix"], lacks: ["--release"] },
  { typed: "flanneld --kube-s", offers: ["--kube-subnet-mgr"], lacks: ["--kube-api-url"] },
  { typed: "flanneld --etcd-api=", offers: ["auto", "v2", "v3"], lacks: ["human"] },
  { typed: "flanneld --etcd-api v", offers: ["v2", "v3"], lacks: ["auto"] },
  { typed: "flanneld --ip-masq --log-format ", offers: ["human", "json"], lacks: ["cleanup"] },
  { typed: "flanneld --iface ", offers: ["lo"], lacks: ["--iface"] },
  { typed: "flanneld --subnet-file /etc/host", offers: ["hosts"], lacks: ["--iface"] },
  { typed: "flanneld cleanup --rel", offers: ["--release"] },
  { typed: "flanneld cleanup --etcd-api=", offers: ["auto"] },
  { typed: "flanneld completion ", offers: ["bash", "zsh", "fish"], lacks: ["--iface"] },
  { typed: "flanneld docker-opts -", offers: ["-d", "--config-file"], lacks: ["--iface"] },
  { typed: "flanneld docker-opts -d /etc/host", offers: ["hosts"] },
];

/** Types `typed` and returns what the shell offers, in any layout. */
const ASK: Readonly<Record<Shell, (script: string, typed: string) => Promise<string>>> = {
  bash: (script, typed) =>
    // As readline calls it: "=" is a word of its own.
    run("bash", [
      "-c",
      `compopt() { :; }
source "$1"
line=\${2//=/ = }
read -ra COMP_WORDS <<< "$line"
[[ $line == *" " ]] && [[ $2 != *= ]] && COMP_WORDS+=("")
COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
_flanneld
printf '%s\\n' "\${COMPREPLY[@]}"`,
      "bash",
      script,
      typed,
    ]),
  fish: (script, typed) =>
    run("fish", ["--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"', script, typed]),
  // Only an interactive zsh completes: one in a pseudo-terminal, in which Tab is pressed.
  zsh: (script, typed) =>
    run("zsh", [
      "-f",
      "-c",
      `zmodload zsh/zpty
zpty -b z zsh -f -i
zpty -w z "PROMPT=; autoload -U compinit; compinit -u -D; source $1; LISTMAX=0; COLUMNS=300"
zpty -w z "zstyle ':completion:*' list-prompt ''; zstyle ':completion:*' menu no; bindkey '^X' list-choices"
zpty -w z "told() { print -n ' FOUND''ALL ' }; comppostfuncs=(told); print READY''NOW"
zpty -r z line '*READYNOW*'
zpty -w -n z "$2"
zpty -w -n z $'\\x18'
zpty -r z line '*FOUNDALL*'
print -r -- "$line"
sleep 0.5 # it lists nothing where more keys wait
zpty -w -n z $'\\x15exit\\n'
while zpty -r z line; do print -r -- "$line"; done
zpty -d z 2>/dev/null; true`,
      "zsh",
      script,
      typed,
    ]),
};

async function run(program: string, args: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    env: { TERM: "dumb", LC_ALL: "C.UTF-8" },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  assert.ok(success, decoder.decode(stderr));
  return decoder.decode(stdout);
}

for (const shell of ["bash", "zsh", "fish"] as const satisfies readonly (Tool & Shell)[]) {
  const obstacle = missingTools([shell]);
  Deno.test({
    name: skippable(`${shell} completes commands, flags and values`, obstacle),
    ignore: obstacle !== undefined,
    async fn() {
      const script = await Deno.makeTempFile();
      try {
        await Deno.writeTextFile(script, completion(shell));
        await run(shell, ["-n", script]);
        for (const { typed, offers, lacks = [] } of CASES) {
          const said = await ASK[shell](script, typed);
          const offered = said.replaceAll(typed.trim(), "").replaceAll(/\t.*|\*/g, "");
          const words = offered.split(/[\s=]+|(?<=\/)(?=\w+)|\/etc\//);
          for (const word of offers) {
            assert.ok(words.includes(word), `${typed}: ${word} in ${said}`);
          }
          for (const word of lacks) {
            assert.ok(!words.includes(word), `${typed}: ${word} in ${said}`);
          }
        }
      } finally {
        await Deno.remove(script);
      }
    },
  });
}
