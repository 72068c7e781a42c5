import { run } from "./run.ts";

/** A certificate and its key, as PEM files. */
export interface CertificateFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

/** A certificate authority of its own, made by openssl in a temporary directory. */
export class TestCa implements AsyncDisposable {
  readonly directory: string;
  readonly #signal: AbortSignal;

  private constructor(directory: string, signal: AbortSignal) {
    this.directory = directory;
    this.#signal = signal;
  }

  static async create(options: { readonly signal: AbortSignal }): Promise<TestCa> {
    const directory = await Deno.makeTempDir({ prefix: "flanneld-test-ca-" });
    const ca = new TestCa(directory, options.signal);
    await ca.#openssl([
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
      ...[
        "-subj",
        `/CN=test CA ${crypto.randomUUID()}`,
        "-days",
        "2",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
      ],
      ...["-addext", "basicConstraints=critical,CA:TRUE"],
    ]);
    return ca;
  }

  get caFile(): string {
    return `${this.directory}/ca.pem`;
  }

  /**
   * Issues a certificate under `name`, which names its files; one that is there is replaced.
   * `subjectAltNames` are written as openssl does: `DNS:localhost`, `IP:127.0.0.1`.
   */
  async issue(
    name: string,
    options: { readonly subjectAltNames?: readonly string[]; readonly days?: number } = {},
  ): Promise<CertificateFiles> {
    const { subjectAltNames = [], days = 1 } = options;
    const extensions = [
      "basicConstraints=critical,CA:FALSE",
      "extendedKeyUsage=serverAuth,clientAuth",
      ...(subjectAltNames.length === 0 ? [] : [`subjectAltName=${subjectAltNames.join(",")}`]),
    ];
    await Deno.writeTextFile(`${this.directory}/${name}.ext`, extensions.join("\n"));
    await this.#openssl([
      ...["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
      ...["-subj", `/CN=${name}`, "-keyout", `${name}.key.new`, "-out", `${name}.csr`],
    ]);
    await this.#openssl([
      ...["x509", "-req", "-in", `${name}.csr`, "-CA", "ca.pem", "-CAkey", "ca.key"],
      ...["-CAcreateserial", "-days", String(days)],
      ...["-extfile", `${name}.ext`, "-out", `${name}.pem.new`],
    ]);
    const files = {
      certFile: `${this.directory}/${name}.pem`,
      keyFile: `${this.directory}/${name}.key`,
    };
    await Deno.rename(`${this.directory}/${name}.key.new`, files.keyFile);
    await Deno.rename(`${this.directory}/${name}.pem.new`, files.certFile);
    return files;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }

  async #openssl(args: readonly string[]): Promise<void> {
    const qualified = args.map((arg) =>
      /^(ca|[\w-]+)\.(pem|key|csr|ext)(\.new)?$/.test(arg) ? `${this.directory}/${arg}` : arg
    );
    await run("openssl", qualified, { signal: this.#signal });
  }
}
