// An answer that is not a success: a status, a code for programs, a sentence for people.

export class Refusal extends Error {
  constructor(status, code, message, headers = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.headers = headers;
  }

  response() {
    return Response.json({ error: this.code, message: this.message }, { status: this.status, headers: this.headers });
  }
}
