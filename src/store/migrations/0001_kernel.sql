-- The kernel: accounts and their keys, agents, the ledger, orders, usage.
-- Amounts are micro-USD in bigint. Hot tables (transactions, usage) carry no foreign keys:
-- every row of a batch is joined to the account rows it has locked, which proves more.

create table accounts (
  id          uuid primary key,
  token       bigint not null default 0,
  available   bigint not null default 0,
  reserved    bigint not null default 0,
  status      text not null default 'active',
  created_at  timestamptz not null default now(),
  constraint accounts_available_not_negative check (available >= 0),
  constraint accounts_reserved_not_negative check (reserved >= 0),
  constraint accounts_status_known check (status in ('active', 'suspended'))
);
comment on column accounts.token is 'fencing token: one higher at every activation; writes that present another are refused';

-- Credited by any committer as an unfenced delta, held absolutely by no actor.
create table earnings (
  account_id  uuid primary key references accounts (id),
  posted      bigint not null default 0,
  constraint earnings_posted_not_negative check (posted >= 0)
);

create table users (
  id                 uuid primary key,
  account_id         uuid not null references accounts (id),
  email              text not null,
  password_hash      text not null,
  email_verified_at  timestamptz,
  created_at         timestamptz not null default now(),
  constraint users_email_unique unique (email),
  constraint users_email_lower check (email = lower(email))
);
create index users_account on users (account_id);

create table api_keys (
  id          uuid primary key,
  account_id  uuid not null references accounts (id),
  dialect     text not null,
  name        text not null,
  key_hash    bytea not null,
  key_prefix  text not null,
  scopes      text[] not null,
  status      text not null default 'active',
  rate_limit  integer,
  expires_at  timestamptz,
  created_at  timestamptz not null default now(),
  revoked_at  timestamptz,
  constraint api_keys_hash_unique unique (key_hash),
  constraint api_keys_hash_is_sha256 check (octet_length(key_hash) = 32),
  constraint api_keys_status_known check (status in ('active', 'revoked')),
  constraint api_keys_rate_limit_positive check (rate_limit > 0)
);
create index api_keys_account on api_keys (account_id, id desc);

create table budgets (
  key_id        uuid not null references api_keys (id),
  budget_window text not null,
  amount        bigint not null,
  period_start  timestamptz not null,
  spent         bigint not null default 0,
  primary key (key_id, budget_window),
  constraint budgets_window_known check (budget_window in ('day', 'month', 'total')),
  constraint budgets_never_overspent check (spent between 0 and amount)
);

create table agents (
  id               uuid primary key,
  owner_id         uuid not null references accounts (id),
  dialect          text not null,
  ticker           text not null,
  name             text not null,
  description      text not null,
  category         text not null,
  endpoint_url     text not null,
  price            bigint not null,
  free_tier_calls  integer not null default 0,
  auth_tier        text not null,
  status           text not null default 'active',
  suspended        boolean not null default false,
  manifest         jsonb,
  provider         text,
  provider_key     bytea,
  version          bigint not null default 1,
  created_at       timestamptz not null default now(),
  constraint agents_ticker_unique unique (ticker),
  constraint agents_ticker_form check (ticker ~ '^[A-Z][A-Z0-9]{1,9}$'),
  constraint agents_price_not_negative check (price >= 0),
  constraint agents_status_known check (status in ('active', 'paused')),
  constraint agents_auth_tier_known check (auth_tier in ('jwt_default', 'buyer_key'))
);
create index agents_owner on agents (owner_id, id desc);

-- One row a committed batch: what an in-doubt commit is looked up by, and the system sides as sums.
create table batches (
  id           uuid primary key,
  fee          bigint not null,
  buyback      bigint not null,
  deposits     bigint not null,
  withdrawals  bigint not null,
  refused      uuid[] not null,
  created_at   timestamptz not null default now()
);
create index batches_created_at on batches (created_at);

-- Batches older than an hour are folded into these sums.
create table books (
  book    text primary key,
  amount  bigint not null default 0,
  constraint books_known check (book in ('fee', 'buyback', 'deposits', 'withdrawals'))
);
insert into books (book) values ('fee'), ('buyback'), ('deposits'), ('withdrawals');

-- A transaction is one row; `entries` is the view that an auditor sums.
create table transactions (
  id             uuid primary key,
  batch_id       uuid not null,
  account_id     uuid not null,
  type           text not null,
  available      bigint not null,
  reserved       bigint not null,
  earner_id      uuid,
  earned         bigint not null,
  fee            bigint not null,
  buyback        bigint not null,
  deposits       bigint not null,
  withdrawals    bigint not null,
  balance_after  bigint not null,
  agent_id       uuid,
  order_id       uuid,
  subject_id     uuid,
  reference      text,
  created_at     timestamptz not null,
  constraint transactions_balanced check (available + reserved + earned + fee + buyback + deposits + withdrawals = 0),
  constraint transactions_earner_named check (earned = 0 or earner_id is not null),
  constraint transactions_type_known check (type in ('deposit', 'withdrawal', 'charge', 'reserve', 'complete', 'refund', 'earning', 'fee', 'adjustment'))
);
create index transactions_account on transactions (account_id, id desc);
create unique index transactions_order_once on transactions (order_id, type) where order_id is not null;
comment on column transactions.id is 'of a captured hold: the hold''s own id, so that no hold is captured twice';
comment on column transactions.deposits is 'side of the outside world: negative when money came in';

create view entries as
  select id as transaction_id, account_id, 'available' as book, available as amount from transactions where available <> 0
  union all select id, account_id, 'reserved', reserved from transactions where reserved <> 0
  union all select id, earner_id, 'earnings', earned from transactions where earned <> 0
  union all select id, null, 'fee', fee from transactions where fee <> 0
  union all select id, null, 'buyback', buyback from transactions where buyback <> 0
  union all select id, null, 'deposits', deposits from transactions where deposits <> 0
  union all select id, null, 'withdrawals', withdrawals from transactions where withdrawals <> 0;

create table orders (
  id              uuid primary key,
  account_id      uuid not null,
  subject_id      uuid not null,
  agent_id        uuid not null,
  token           bigint not null,
  status          text not null,
  prompt          text not null,
  payment_method  text not null,
  amount          bigint not null,
  fee             bigint not null,
  output_hash     text,
  output_text     text,
  error           text,
  created_at      timestamptz not null,
  completed_at    timestamptz,
  constraint orders_status_known check (status in ('pending', 'completed', 'failed'))
);
create index orders_account on orders (account_id, id desc);
create index orders_pending on orders (account_id) where status = 'pending';
comment on column orders.token is 'of the activation that runs it: only a higher one may recover it';

create table usage (
  id          uuid not null,
  account_id  uuid not null,
  subject_id  uuid not null,
  agent_id    uuid not null,
  call        text not null,
  status      integer not null,
  cost        bigint not null,
  latency_ms  integer not null,
  created_at  timestamptz not null
) partition by range (created_at);
create index usage_account on usage (account_id, created_at);
create index usage_agent on usage (agent_id, created_at);
create table usage_default partition of usage default;

create table usage_hourly_by_agent (
  hour        timestamptz not null,
  agent_id    uuid not null,
  calls       bigint not null,
  errors      bigint not null,
  cost        bigint not null,
  latency_ms  bigint not null,
  primary key (hour, agent_id)
);
create table usage_hourly_by_account (
  hour        timestamptz not null,
  account_id  uuid not null,
  calls       bigint not null,
  errors      bigint not null,
  cost        bigint not null,
  primary key (hour, account_id)
);
-- Since listing began: what lists sort and show.
create table agent_totals (
  agent_id  uuid primary key,
  calls     bigint not null,
  cost      bigint not null
);

create table idempotency_keys (
  account_id   uuid not null,
  key          text not null,
  fingerprint  text not null,
  result_id    text not null,
  created_at   timestamptz not null,
  primary key (account_id, key)
);
create index idempotency_keys_created_at on idempotency_keys (created_at);
create table idempotency_answers (
  account_id  uuid not null,
  key         text not null,
  status      integer not null,
  headers     jsonb not null,
  body        bytea not null,
  created_at  timestamptz not null
) partition by range (created_at);
create index idempotency_answers_key on idempotency_answers (account_id, key);
create table idempotency_answers_default partition of idempotency_answers default;

create table audit_log (
  id          uuid primary key,
  account_id  uuid not null,
  actor       text not null,
  action      text not null,
  target      text not null,
  details     jsonb not null,
  created_at  timestamptz not null
);
create index audit_log_account on audit_log (account_id, id desc);
