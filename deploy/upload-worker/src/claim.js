// One key for one content, also when the same file arrives twice at once.
//
// The record uploads-by-sha256/<hex> is written before the object, create-only, and names the key that the object is
// to have. Whoever finds a record puts its object under that key, create-only too: two uploads of one content at once
// end with one object, and a record whose upload was cut off loses nothing, since the next upload fills its place.
// A record that is old and has no object gets a new key: a key with the date of long ago would stand behind the
// cursor of a pipeline that lists keys in the order of time.

import { inboxKey, indexKey } from "./keys.js";

const STALE = 15 * 60 * 1000; // longer than a presigned address is valid

/** {key, exists, mine}: the key for this content, whether an object stands there already, and our record if we made it. */
export async function claim(env, sha256, name, urgent) {
  const record = indexKey(env, sha256);
  for (let attempt = 0; attempt < 5; attempt++) {
    const now = Date.now();
    const mine = { key: inboxKey(env, name, urgent, now), at: now };
    const found = await env.BUCKET.get(record);
    if (!found) {
      const put = await env.BUCKET.put(record, JSON.stringify(mine), { onlyIf: new Headers({ "If-None-Match": "*" }) });
      if (put) return { key: mine.key, exists: false, mine: record };
      continue; // another was first
    }
    const first = await found.json();
    if (await env.BUCKET.head(first.key)) return { key: first.key, exists: true };
    if (now - first.at <= STALE) return { key: first.key, exists: false };
    const put = await env.BUCKET.put(record, JSON.stringify(mine), { onlyIf: { etagMatches: found.etag } });
    if (put) return { key: mine.key, exists: false, mine: record };
  }
  throw new Error("the record of this content is changing all the time");
}

/** Takes our record away after an upload that stored nothing, unless another upload has filled its place meanwhile. */
export async function unclaim(env, { key, mine }) {
  try {
    if (mine && !(await env.BUCKET.head(key))) await env.BUCKET.delete(mine);
  } catch (error) {
    // It does no harm: the next upload of this content takes its place.
    console.warn("record not taken away:", error?.message ?? String(error));
  }
}
