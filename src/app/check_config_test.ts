import assert from "node:assert/strict";
import { backends } from "../runtime/mod.ts";
import { checkConfig } from "./check_config.ts";

/** What is said of a file that holds `text`, without the file's name. */
async function check(text: string) {
  const file = await Deno.makeTempFile();
  const said: string[] = [];
  const complaints: string[] = [];
  const strip = (list: string[]) => (line: string) => list.push(line.replace(`${file}: `, ""));
  try {
    await Deno.writeTextFile(file, text);
    const valid = await checkConfig(file, {
      backends,
      say: strip(said),
      complain: strip(complaints),
    });
    return { valid, said, complaints };
  } finally {
    await Deno.remove(file);
  }
}

Deno.test("checkConfig() says what a valid config means, with its warnings", async () => {
  assert.deepEqual(
    await check(
      '{"Network":"10.24.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10::/48",' +
        '"Backend":{"Type":"vxlan","Prot":1}}',
    ),
    {
      valid: true,
      said: [
        "valid: 10.24.0.0/16 in subnets of /24 and fd00:10::/48 in subnets of /64, backend vxlan",
      ],
      complaints: ["warning: Backend.Prot is not known and has no effect; did you mean Port?"],
    },
  );
});

Deno.test("checkConfig() lists the faults of the network, the backend and both together", async () => {
  assert.deepEqual(
    await check(
      '{"Network":"10.0.0.0/8","SubnetLen":31,"EnableIPv6":true,"IPv6Network":"fd00:10::/48","Backend":{"Type":"ipip"}}',
    ),
    {
      valid: false,
      said: [],
      complaints: [
        "SubnetLen must be less than /31",
        "backend ipip cannot carry IPv6; set EnableIPv6 to false, or choose another backend",
      ],
    },
  );
  const { valid, complaints } = await check(
    '{"Network":"x","Backend":{"Type":"ali-vpc","AccessKeySecret":7,"Overflow":"vxaln"}}',
  );
  assert.ok(!valid);
  assert.equal(complaints.length, 3, complaints.join("\n"));
  assert.match(complaints.join("\n"), /Overflow must be one of: .* did you mean vxlan\?/);
  assert.match((await check("“")).complaints[0]!, /U\+201C/);
});

Deno.test("checkConfig() says which file cannot be read", async () => {
  const complaints: string[] = [];
  const options = { backends, say: assert.fail, complain: (line: string) => complaints.push(line) };
  assert.equal(await checkConfig("/nowhere/config.json", options), false);
  assert.match(complaints.join(), /^Cannot read \/nowhere\/config\.json: No such file/);
});
