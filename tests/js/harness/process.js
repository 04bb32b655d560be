// A program that a test started: its output is kept for the failure that may come, and it is gone when the tests are gone.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { PATIENCE, within } from "./wait.js";

/** Waits for the end of its standard input, which the kernel closes with the tests, and ends what they left behind. */
const WATCHDOG = `trap '' INT TERM HUP; read -r _; kill -9 "$1" 2>/dev/null`;

const LINES_MAX = 200;

export class Process {
  constructor(name, command, args, options = {}) {
    this.name = name;
    this.kept = [];
    this.child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], detached: true, ...options });
    this.exited = new Promise((resolve, reject) => {
      this.child.once("exit", (code, signal) => resolve(code ?? signal));
      this.child.once("error", reject);
    });
    this.exited.catch(() => {});
    this.watchdog = spawn("sh", ["-c", WATCHDOG, "watchdog", String(this.child.pid)], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
    this.exited.finally(() => this.watchdog.kill("SIGKILL")).catch(() => {});
    this.firstLine = new Promise((resolve) => {
      for (const output of [this.child.stdout, this.child.stderr]) {
        createInterface({ input: output }).on("line", (line) => {
          if (output === this.child.stdout) resolve(line);
          this.kept.push(line);
          if (this.kept.length > LINES_MAX) this.kept.shift();
        });
      }
    });
  }

  /** The first line of standard output. */
  async said() {
    const ended = this.exited.then((code) => {
      throw new Error(`${this.name} ended with ${code} instead of starting\n${this.log()}`);
    });
    return within(2 * PATIENCE, Promise.race([this.firstLine, ended]), `${this.name} to start`);
  }

  /** Ends it and gives its exit code. */
  async end(signal = "SIGTERM") {
    if (this.child.exitCode === null) this.child.kill(signal);
    return within(PATIENCE, this.exited, `the end of ${this.name}`);
  }

  log() {
    return this.kept.join("\n");
  }
}
