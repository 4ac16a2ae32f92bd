// Unpacks the browser and what it needs from its package: node unpack.mjs <the package's folder> <to>.
import { pathToFileURL } from "node:url";

const [, , source, target] = process.argv;
// The package unpacks to where temporary files go.
process.env.TMPDIR = target;
const { inflate } = await import(pathToFileURL(`${source}/build/index.js`));
for (const name of ["chromium.br", "al2023.tar.br", "fonts.tar.br"]) await inflate(`${source}/bin/${name}`);
