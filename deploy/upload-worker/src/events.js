// The R2-shaped event of a new object, for development: Cloudflare's simulator sends none.
//
// In production SEND_EVENTS is not set and R2's own event notifications do this. An event that is lost is no lost
// upload: the pipeline's reconcile run lists the inbox.

export async function announce(env, { key, size, etag }) {
  if (env.SEND_EVENTS !== "true") return;
  const event = {
    account: "development",
    action: "PutObject",
    bucket: env.BUCKET_NAME,
    object: { key, size, eTag: etag },
    eventTime: new Date().toISOString(),
  };
  try {
    if (env.EVENTS) await env.EVENTS.send(event);
    if (env.DEV_EVENTS_URL) {
      const answer = await fetch(env.DEV_EVENTS_URL, { method: "POST", body: JSON.stringify(event) });
      if (!answer.ok) throw new Error(`${env.DEV_EVENTS_URL} answered ${answer.status}`);
    }
  } catch (error) {
    console.error("event not sent:", error?.message ?? String(error));
  }
}
