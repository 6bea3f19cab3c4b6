// The upload Worker on an R2 that fails when the request says so: X-Fail names the call, `get` of a record or `put` of
// the upload. The real bucket is behind it. X-Fail-After: so many bytes of a stream are taken before the failure.

import app from "./index.js";

const failure = (call) => new Error(`${call}: We encountered an internal error. Please try again. (10001)`);

async function failing(body, after) {
  if (body instanceof ReadableStream && after > 0) {
    const reader = body.getReader();
    for (let taken = 0; taken < after; ) {
      const { done, value } = await reader.read();
      if (done) break;
      taken += value.length;
    }
  }
  throw failure("put");
}

export default {
  fetch(request, env, context) {
    const fail = request.headers.get("X-Fail");
    const after = Number(request.headers.get("X-Fail-After") ?? 0);
    const real = env.BUCKET;
    const bucket = {
      get: (key) => (fail === "get" ? Promise.reject(failure("get")) : real.get(key)),
      head: (key) => real.head(key),
      delete: (key) => real.delete(key),
      put: (key, body, options) =>
        fail === "put" && !key.includes("uploads-by-sha256/") ? failing(body, after) : real.put(key, body, options),
    };
    return app.fetch(request, { ...env, BUCKET: bucket }, context);
  },
};
