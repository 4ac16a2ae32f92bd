// Every call of one SDK, then the end of the process: node send.cjs <sdk> <collector's URL>. NODE_PATH leads to the installed SDKs.
"use strict";

const KEY = "test-key";
const [, , sdk, url] = process.argv;

const segment = async () => {
  const { Analytics } = require("@segment/analytics-node");
  const client = new Analytics({ writeKey: KEY, host: url, maxRetries: 5, flushInterval: 100 });
  client.on("error", (error) => { console.error(error); process.exitCode = 1; });
  client.identify({ userId: "u1", traits: { email: "a@b.co" }, messageId: "m-identify" });
  client.track({ userId: "u1", anonymousId: "a1", event: "Order Completed", properties: { total: 19.95 }, messageId: "m-track" });
  client.page({ userId: "u1", category: "Docs", name: "Home", properties: { url: "https://shop.example/" }, messageId: "m-page" });
  client.screen({ userId: "u1", category: "Main", name: "Cart", messageId: "m-screen" });
  client.group({ userId: "u1", groupId: "g1", traits: { plan: "pro" }, messageId: "m-group" });
  client.alias({ userId: "u1", previousId: "u0", messageId: "m-alias" });
  await client.closeAndFlush({ timeout: 60000 });
};

const rudderstack = async () => {
  const Analytics = require("@rudderstack/rudder-sdk-node");
  const client = new Analytics(KEY, { dataPlaneUrl: url, flushInterval: 100 });
  client.identify({ userId: "u1", traits: { email: "a@b.co" }, messageId: "m-identify" });
  client.track({ userId: "u1", anonymousId: "a1", event: "Order Completed", properties: { total: 19.95 }, messageId: "m-track" });
  client.page({ userId: "u1", name: "Home", properties: { url: "https://shop.example/" }, messageId: "m-page" });
  client.screen({ userId: "u1", name: "Cart", messageId: "m-screen" });
  client.group({ userId: "u1", groupId: "g1", traits: { plan: "pro" }, messageId: "m-group" });
  client.alias({ userId: "u1", previousId: "u0", messageId: "m-alias" });
  // No flush(): called right after, it made this SDK send events twice (under the same message ids).
};

const snowplow = async () => {
  const { newTracker, ...build } = require("@snowplow/node-tracker");
  for (const encodeBase64 of [true, false]) {
    const tracker = newTracker({ namespace: "cf", appId: KEY, encodeBase64 }, { endpoint: url, bufferSize: 100 });
    tracker.setUserId(encodeBase64 ? "u-base64" : "u-plain");
    tracker.track(build.buildPageView({ pageUrl: "https://shop.example/a", pageTitle: "A" }));
    tracker.track(build.buildPagePing({ pageUrl: "https://shop.example/a", minXOffset: 1, maxXOffset: 2, minYOffset: 3, maxYOffset: 4 }));
    tracker.track(build.buildStructEvent({ category: "shop", action: "add", label: "cup", property: "red", value: 2.5 }));
    const order = { schema: "iglu:com.acme/order/jsonschema/1-0-0", data: { revenue: 19.95, note: "ÿ?>ü" } };
    tracker.track(build.buildSelfDescribingEvent({ event: order }), [{ schema: "iglu:com.acme/ctx/jsonschema/1-0-0", data: { k: 1 } }]);
    tracker.track(build.buildScreenView({ name: "Cart", id: "s1" }));
    tracker.track(build.buildEcommerceTransaction({ orderId: "007", total: 19.95, currency: "EUR" }));
    tracker.track(build.buildEcommerceTransactionItem({ orderId: "007", sku: "1", name: "Cup", price: 9.5, quantity: 2 }));
    await tracker.flush();
  }
};

({ segment, rudderstack, snowplow })[sdk]().catch((error) => { console.error(error); process.exitCode = 1; });
