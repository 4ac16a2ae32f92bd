// One browser and one site, driven by lines of JSON: node drive.cjs <folder of the unpacked browser>. NODE_PATH leads to the packages.
//
// In: {"do": "open", "page", "host", "headers", "collector", "secure", and what else the page is told} and then {"do": "leave"}; out, for each, a
// line of JSON. The end of the input ends the browser. Its requests to anywhere but this machine fail, and are told like all others.
"use strict";

const fs = require("fs");
const http = require("http");
const path = require("path");
const readline = require("readline");
const puppeteer = require("puppeteer-core");

const BROWSER = process.argv[2];
const PAGES = path.join(__dirname, "pages");
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8" };
const LOCAL = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost";

// Milliseconds for what hangs, not for what is slow: on a busy machine a page takes seconds.
const PATIENCE = 120000;

// What the pages are told in place of {{name}}.
let told = {};

const site = http.createServer((request, response) => {
  const { pathname } = new URL(request.url, "http://site");
  const packaged = pathname.startsWith("/npm/");
  const file = packaged ? path.join(process.env.NODE_PATH, pathname.slice(5)) : path.join(PAGES, pathname);
  if (!fs.existsSync(file)) return response.writeHead(404).end();
  const content = fs.readFileSync(file);
  response.writeHead(200, { "Content-Type": TYPES[path.extname(file)] });
  response.end(packaged ? content : content.toString().replace(/{{(\w+)}}/g, (_, name) => told[name]));
});

// In front of the collector, and says what a proxy says that has ended TLS there.
const front = http.createServer((request, response) => {
  const headers = { ...request.headers, "x-forwarded-proto": "https" };
  const passed = http.request(new URL(request.url, told.collector), { method: request.method, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  request.pipe(passed);
});

const listening = (server) => new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));

const watched = (page) => {
  const seen = { requests: [], failures: [], errors: [] };
  page.on("console", (message) => { if (message.type() === "error") seen.errors.push(message.text()); });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("requestfailed", (request) => seen.failures.push(`${request.method()} ${request.url()} ${request.failure().errorText}`));
  page.on("response", (response) => seen.requests.push([response.request().method(), response.url(), response.status()]));
  return seen;
};

const main = async () => {
  const [sitePort, frontPort] = await Promise.all([site, front].map(listening));
  const browser = await puppeteer.launch({
    executablePath: path.join(BROWSER, "chromium"),
    headless: "shell",
    // The browser ends with this process, however that ends.
    pipe: true,
    protocolTimeout: PATIENCE,
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", `--host-resolver-rules=${LOCAL}`],
    env: {
      ...process.env,
      LANG: "en_US.UTF-8",
      LD_LIBRARY_PATH: path.join(BROWSER, "al2023", "lib"),
      FONTCONFIG_PATH: path.join(BROWSER, "fonts"),
    },
  });
  let page, seen;
  const steps = {
    open: async (command) => {
      const door = command.secure ? `http://127.0.0.1:${frontPort}` : command.collector;
      told = { ...command, door };
      // That of a test that failed.
      if (page && !page.isClosed()) await page.close();
      page = await (await browser.createBrowserContext()).newPage();
      page.setDefaultTimeout(PATIENCE);
      seen = watched(page);
      await page.setExtraHTTPHeaders(command.headers);
      const origin = `http://${command.host}:${sitePort}`;
      await page.goto(`${origin}/${command.page}.html`);
      await page.evaluate(() => window.called && Promise.resolve(window.called).then(() => true));
      return { origin, door };
    },
    leave: async () => {
      // What is under way would be broken off.
      await page.waitForNetworkIdle({ idleTime: 200 });
      const answer = structuredClone(seen);
      await page.close({ runBeforeUnload: true });
      page = undefined; // It goes in its own time.
      return answer;
    },
  };
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    const answer = await steps[command.do](command).catch((error) => ({ failed: String(error) }));
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  await browser.close();
  site.close();
  front.close();
};

main().catch((error) => { console.error(error); process.exit(1); });
