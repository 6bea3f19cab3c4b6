// The Worker's routes, and the one place where an error becomes an answer.
//
//   PUT  /uploads/<file name>[?urgent=1]     the PDF as the body
//   POST /uploads?name=<file name>[&urgent=1]  the same
//   POST /uploads/presign                    {name, size, sha256, urgent?}: an address for a direct upload
//   GET  /health
//
// What an upload must be is in upload.js, who may upload in auth.js, names and keys in keys.js.

import { authorised } from "./auth.js";
import { Refusal } from "./refusal.js";
import { presign } from "./presign.js";
import { upload } from "./upload.js";

export default {
  async fetch(request, env, context) {
    try {
      return await route(request, env, context);
    } catch (error) {
      if (error instanceof Refusal) return error.response();
      console.error("upload failed:", error?.message ?? String(error));
      return new Refusal(503, "store_unavailable", "the upload could not be stored; nothing was kept: try again").response();
    }
  },
};

async function route(request, env, context) {
  const url = new URL(request.url);
  if (url.pathname === "/health") return Response.json({ ok: true });
  if (url.pathname !== "/uploads" && !url.pathname.startsWith("/uploads/")) {
    throw new Refusal(404, "not_found", "there is only PUT /uploads/<name>, POST /uploads?name=<name> and POST /uploads/presign");
  }
  await authorised(request, env);
  if (url.pathname === "/uploads/presign" && request.method === "POST") return presign(request, env);
  if (request.method !== "PUT" && request.method !== "POST") {
    throw new Refusal(405, "method_not_allowed", "use PUT or POST", { Allow: "PUT, POST" });
  }
  return upload(request, env, context);
}
