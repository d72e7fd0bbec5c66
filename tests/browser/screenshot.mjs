// Makes docs/screenshot.png: the sign-in page, and what the built-in backend sees.
//
//   PORTCULLIS=../../target/debug/portcullis node screenshot.mjs

import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { launch, signIn, visit } from "./browser.mjs";
import { start } from "./gate.mjs";

const TO = resolve(dirname(fileURLToPath(import.meta.url)), "../../docs/screenshot.png");
const HEIGHT = 640;

const gate = await start();
// The port that the README names.
const browser = await launch({ args: [`--host-resolver-rules=MAP localhost:8443 127.0.0.1:${gate.ports.https}`] });
try {
  const account = gate.firstAccount();
  const options = { viewport: { width: 560, height: HEIGHT }, deviceScaleFactor: 1.5, colorScheme: "light" };
  const { page } = await visit(browser, options);
  await page.goto("https://localhost:8443/");
  await page.getByLabel("User name").fill(account.name);
  await page.getByLabel("Password").fill(account.password.slice(0, 16));
  const pictures = [await page.screenshot()];
  await signIn(page, account);
  await page.setViewportSize({ width: 720, height: HEIGHT });
  pictures.push(await page.screenshot());

  const both = await visit(browser, { viewport: { width: 1016, height: 502 } });
  const images = pictures.map((picture) => `<img src="data:image/png;base64,${picture.toString("base64")}">`);
  await both.page.setContent(`<style>
    body { margin: 0; display: flex; gap: 12px }
    img { height: 500px; border: 1px solid #d5d9e0; border-radius: 10px }
  </style>${images.join("")}`);
  await both.page.screenshot({ path: TO, omitBackground: true });
} finally {
  await browser.close();
  await gate.stop();
}
