const fs = require("fs"), ms = require("ms");
fs.mkdirSync("dist", { recursive: true });
fs.writeFileSync("dist/index.html", `two days are ${ms("2 days")} ms\n`);
