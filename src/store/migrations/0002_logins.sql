-- Logins and their refresh tokens, mailed links, signing keys, the check of SECRETS_KEY.
-- Every secret that a client holds is kept as its SHA-256 only.

-- One row a login that is still alive. Logout, reuse, a new password and expiry delete it; audit_log remembers.
create table logins (
  id           uuid primary key,
  user_id      uuid not null references users (id),
  family_hash  bytea not null,
  token_hash   bytea not null,
  created_at   timestamptz not null,
  expires_at   timestamptz not null,
  constraint logins_family_unique unique (family_hash),
  constraint logins_family_is_sha256 check (octet_length(family_hash) = 32),
  constraint logins_token_is_sha256 check (octet_length(token_hash) = 32)
);
create index logins_user on logins (user_id, created_at desc);
comment on column logins.family_hash is 'of the half of the refresh token that all tokens of the login have in common: it tells a token that was used before from a made-up one';
comment on column logins.token_hash is 'of the other half of the one refresh token that is good now';

-- A used link's row is deleted, which is what makes it single use.
create table email_tokens (
  token_hash  bytea primary key,
  user_id     uuid not null references users (id),
  purpose     text not null,
  created_at  timestamptz not null,
  expires_at  timestamptz not null,
  constraint email_tokens_hash_is_sha256 check (octet_length(token_hash) = 32),
  constraint email_tokens_purpose_known check (purpose in ('verify', 'reset'))
);
create index email_tokens_user on email_tokens (user_id, purpose);

-- A key signs from signs_at until its successor does.
create table signing_keys (
  kid          text primary key,
  purpose      text not null,
  generation   integer not null,
  public_jwk   jsonb not null,
  private_jwk  bytea not null,
  sealed       boolean not null,
  created_at   timestamptz not null,
  signs_at     timestamptz not null,
  constraint signing_keys_generation_unique unique (purpose, generation),
  constraint signing_keys_generation_not_negative check (generation >= 0),
  constraint signing_keys_purpose_known check (purpose in ('login', 'agent'))
);
comment on column signing_keys.sealed is 'private_jwk is sealed with SECRETS_KEY; otherwise it is JSON in UTF-8';

-- One row, written by the first node that has a SECRETS_KEY.
create table secrets_check (
  only_row  boolean primary key default true,
  salt      bytea not null,
  sealed    bytea not null,
  constraint secrets_check_one_row check (only_row)
);
