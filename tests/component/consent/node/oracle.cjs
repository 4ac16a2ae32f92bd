// Strings of consent made by IAB's reference implementations, with what these read in them, as lines of JSON.
// node oracle.cjs tcf|gpp SEED COUNT
const { TCModel, TCString, GVL, SegmentEncoder, Segment, PurposeRestriction } = require("@iabtcf/core");
const { GppModel } = require("@iabgpp/cmpapi");

// Mulberry32: the same strings for the same seed.
function randomness(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const [, , kind, seed, count] = process.argv;
const random = randomness(Number(seed));
const below = (n) => Math.floor(random() * n);
const some = (last, part) => Array.from({ length: last }, (_, i) => i + 1).filter(() => random() < part);

function spans(ids) {
  const found = [];
  for (const id of ids) {
    const last = found[found.length - 1];
    if (last && last[1] === id - 1) last[1] = id;
    else found.push([id, id]);
  }
  return found;
}

const held = (vector) => [...vector].filter(([, has]) => has).map(([id]) => id);

function vendorList() {
  const vendors = {};
  for (let id = 1; id <= 1200; id++) {
    vendors[id] = {
      id, name: `v${id}`, purposes: [1, 2, 3, 4], legIntPurposes: [7, 8, 9, 10], flexiblePurposes: [2, 7, 8, 9, 10],
      specialPurposes: [], features: [], specialFeatures: [], policyUrl: "https://vendor.example/",
    };
  }
  const named = (n) => Object.fromEntries(Array.from({ length: n }, (_, i) => [i + 1, { id: i + 1, name: "n", description: "d" }]));
  return new GVL({
    gvlSpecificationVersion: 3, vendorListVersion: 150, tcfPolicyVersion: 4, lastUpdated: "2026-01-01T00:00:00Z",
    purposes: named(11), specialPurposes: named(2), features: named(3), specialFeatures: named(2), stacks: {}, vendors,
  });
}

function tcString(list) {
  // A model takes both from its list.
  list.tcfPolicyVersion = [2, 4, 4, 5][below(4)];
  list.vendorListVersion = 1 + below(4000);
  const model = new TCModel(list);
  model.cmpId = 10 + below(4000);
  model.cmpVersion = below(4000);
  model.consentScreen = below(60);
  model.isServiceSpecific = random() < 0.8;
  model.purposeOneTreatment = random() < 0.1;
  model.publisherCountryCode = "DE";
  model.created = model.lastUpdated = new Date(Date.UTC(2024 + below(3), below(12), 1 + below(28)));
  const last = [0, 3, 40, 700, 1200][below(5)];
  const part = [0, 0.01, 0.5, 0.97, 1][below(5)];
  model.purposeConsents.set(some(24, part));
  model.purposeLegitimateInterests.set(some(24, part));
  model.specialFeatureOptins.set(some(12, part));
  model.vendorConsents.set(some(last, part));
  model.vendorLegitimateInterests.set(some(last, [0.02, 0.6][below(2)]));
  for (let i = below(3) * below(4); i > 0; i--) {
    const restriction = new PurposeRestriction(1 + below(11), below(3));
    some(1200, [0.001, 0.9][below(2)]).forEach((id) => model.publisherRestrictions.add(id, restriction));
  }
  const segments = [Segment.CORE];
  if (random() < 0.6) {
    model.vendorsDisclosed.set(some(1200, [0.9, 1, 0.02][below(3)]));
    segments.push(Segment.VENDORS_DISCLOSED);
  }
  if (random() < 0.4) {
    model.numCustomPurposes = below(5);
    model.publisherConsents.set(some(24, 0.5));
    model.publisherLegitimateInterests.set(some(24, 0.5));
    model.publisherCustomConsents.set(some(model.numCustomPurposes, 0.5));
    model.publisherCustomLegitimateInterests.set(some(model.numCustomPurposes, 0.5));
    segments.push(Segment.PUBLISHER_TC);
  }
  return [segments.map((segment) => SegmentEncoder.encode(model, segment)).join("."), segments];
}

function tcFacts([string, segments]) {
  const model = TCString.decode(string);
  const restrictions = model.publisherRestrictions.getRestrictions().map((restriction) => [
    restriction.purposeId, restriction.restrictionType, spans(model.publisherRestrictions.getVendors(restriction)),
  ]);
  return {
    string,
    policy: Number(model.policyVersion),
    version: `tcf 2 policy ${model.policyVersion} cmp ${model.cmpId}/${model.cmpVersion} gvl ${model.vendorListVersion}`,
    updated_us: model.lastUpdated.getTime() * 1000,
    purpose_one_treatment: model.purposeOneTreatment,
    purposes: held(model.purposeConsents),
    interests: held(model.purposeLegitimateInterests),
    features: held(model.specialFeatureOptins),
    vendor_consents: spans(held(model.vendorConsents)),
    vendor_interests: spans(held(model.vendorLegitimateInterests)),
    restrictions,
    disclosed: segments.includes(Segment.VENDORS_DISCLOSED) ? spans(held(model.vendorsDisclosed)) : null,
    publisher: segments.includes(Segment.PUBLISHER_TC)
      ? {
          purpose: held(model.publisherConsents),
          li: held(model.publisherLegitimateInterests),
          custom: held(model.publisherCustomConsents),
          custom_li: held(model.publisherCustomLegitimateInterests),
          customs: Number(model.numCustomPurposes),
        }
      : null,
  };
}

const STATES = "usca usva usco usut usct usfl usmt usor ustx usde usia usne usnh usnj ustn usmn usmd usin usky usri".split(" ");
const UNREAD = new Set(["Version", "MspaVersion", "GpcSegmentType", "MspaCoveredTransaction"]);

function fill(model, section) {
  model.setFieldValue(section, "MspaCoveredTransaction", 1 + below(2));
  const old = section === "usnat" && random() < 0.4;
  if (old) model.setFieldValue(section, "Version", 1);
  // Lists are as long as the newest version has them; what the old one lacks is not written.
  const lengths = { SensitiveDataProcessing: 16, KnownChildSensitiveDataConsents: 3 };
  for (const [field, value] of Object.entries(model.getSection(section))) {
    if (UNREAD.has(field)) continue;
    if (typeof value === "boolean") model.setFieldValue(section, field, random() < 0.6);
    else if (Array.isArray(value)) {
      const length = section === "usnat" ? lengths[field] : value.length;
      model.setFieldValue(section, field, Array.from({ length }, () => below(3)));
    } else model.setFieldValue(section, field, field.endsWith("Notice") ? [0, 1, 1, 2][below(4)] : below(3));
  }
}

function gppString() {
  const model = new GppModel();
  const sections = [...STATES, "usnat", "usnat", "usnat"].filter(() => random() < 0.12);
  if (!sections.length) sections.push(STATES[below(STATES.length)]);
  new Set(sections).forEach((section) => fill(model, section));
  if (random() < 0.3) {
    model.setFieldValue("uspv1", "Notice", "YN-"[below(3)]);
    model.setFieldValue("uspv1", "OptOutSale", "YN-"[below(3)]);
    model.setFieldValue("uspv1", "LspaCovered", "YN-"[below(3)]);
  }
  if (random() < 0.3) {
    model.setFieldValue("tcfeuv2", "PolicyVersion", 4);
    model.setFieldValue("tcfeuv2", "PurposeConsents", Array.from({ length: 24 }, () => random() < 0.5));
    model.setFieldValue("tcfeuv2", "VendorConsents", some(300, 0.4));
    model.setFieldValue("tcfeuv2", "VendorsDisclosed", some(300, 0.9));
  }
  if (random() < 0.1) model.setFieldValue("tcfcav1", "CmpId", 31);
  return model.encode();
}

function gppFacts(string) {
  const model = new GppModel(string);
  const sections = {};
  for (const name of [...STATES, "usnat", "uspv1", "tcfeuv2", "tcfcav1"]) {
    if (model.hasSection(name)) sections[name] = model.getSection(name);
  }
  const eu = sections.tcfeuv2;
  if (eu) {
    sections.tcfeuv2 = {
      PurposeConsents: eu.PurposeConsents, VendorConsents: spans(eu.VendorConsents), VendorsDisclosed: spans(eu.VendorsDisclosed),
    };
  }
  if (sections.tcfcav1) sections.tcfcav1 = {};
  return { string, ids: model.getSectionIds(), sections };
}

if (kind === "tcf") {
  const list = vendorList();
  for (let i = 0; i < Number(count); i++) console.log(JSON.stringify(tcFacts(tcString(list))));
} else {
  for (let i = 0; i < Number(count); i++) console.log(JSON.stringify(gppFacts(gppString())));
}
