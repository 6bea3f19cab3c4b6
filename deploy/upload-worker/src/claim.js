// One key for one content, also when the same file arrives twice at once.
//
// The record uploads-by-sha256/<hex> is written before the object, create-only, and names the key that the object is
// to have. Whoever finds a record puts its object under that key, create-only too: two uploads of one content at once
// end with one object, and a record whose upload was cut off loses nothing, since the next upload fills its place.
// A record that is old and has no object gets a new key: a key with the date of long ago would stand behind the
// cursor of a pipeline that lists keys in the order of time.

import { inboxKey, indexKey } from "./keys.js";

const STALE = 15 * 60 * 1000; // longer than a presigned address is valid

/** {key, exists}: the key for this content, and whether an object stands there already. */
export async function claim(env, sha256, name, urgent) {
  const prefix = env.LAKE_PREFIX ?? "";
  const record = indexKey(prefix, sha256);
  for (let attempt = 0; attempt < 5; attempt++) {
    const now = Date.now();
    const mine = { key: inboxKey(prefix, name, urgent, now), at: now };
    const found = await env.BUCKET.get(record);
    if (!found) {
      const put = await env.BUCKET.put(record, JSON.stringify(mine), { onlyIf: new Headers({ "If-None-Match": "*" }) });
      if (put) return { key: mine.key, exists: false };
      continue; // another was first
    }
    const first = await found.json();
    if (await env.BUCKET.head(first.key)) return { key: first.key, exists: true };
    if (now - first.at <= STALE) return { key: first.key, exists: false };
    const put = await env.BUCKET.put(record, JSON.stringify(mine), { onlyIf: { etagMatches: found.etag } });
    if (put) return { key: mine.key, exists: false };
  }
  throw new Error("the record of this content is changing all the time");
}
