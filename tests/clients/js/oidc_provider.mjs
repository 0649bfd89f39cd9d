// An OpenID provider, for tests of single sign-on: `node oidc_provider.mjs PORT REDIRECT_URI`.
//
// Any user can sign in, with any password; it says on standard output when it listens.

import { createServer } from "node:http";
import Provider from "oidc-provider";

const [port, redirectUri] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "matrix",
      client_secret: "a secret & more",
      redirect_uris: [redirectUri],
      id_token_signed_response_alg: process.env.ALGORITHM ?? "RS256",
    },
  ],
  claims: {
    openid: ["sub"],
    profile: ["name", "preferred_username"],
    email: ["email", "email_verified"],
  },
  features: { devInteractions: { enabled: true } },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      name: `${id} of the provider`,
      preferred_username: id,
      email: `${id}@example.com`,
      email_verified: true,
    }),
  }),
});

createServer(provider.callback()).listen(Number(port), "127.0.0.1", () => console.log("listening"));
