-- The market: owners by name, services, the terms of each call, dues and settlements, agents' identities, teams, webhooks.

-- Two accounts that turned out to be one: `merged_into` has the money and the keys, and this one its history.
alter table accounts
  add column merged_into uuid references accounts (id),
  add constraint accounts_merged_is_empty check (merged_into is null or available = 0 and reserved = 0);
create index accounts_merged on accounts (merged_into) where merged_into is not null;
create index accounts_party on accounts (coalesce(merged_into, id));

-- The name that an account goes by in a dialect whose callers choose one.
create table owners (
  dialect     text not null,
  name        text not null,
  account_id  uuid not null references accounts (id),
  created_at  timestamptz not null,
  primary key (dialect, name),
  constraint owners_one_name unique (dialect, account_id)
);

-- Who an account is, to others: accounts that were merged are one.
create view parties as
  select a.id as account_id, coalesce(a.merged_into, a.id) as party_id, coalesce(o.name, coalesce(a.merged_into, a.id)::text) as name
  from accounts a left join owners o on o.dialect = 'acf' and o.account_id = coalesce(a.merged_into, a.id);

alter table api_keys add column wallet_address text;
create unique index api_keys_prefix_once on api_keys (dialect, key_prefix) where dialect = 'acf' and status = 'active';
comment on column api_keys.key_prefix is 'what a list shows of the key; of an acf key its whole id';

alter table agents
  drop constraint agents_status_known,
  add constraint agents_status_known check (status in ('active', 'paused', 'removed')),
  drop constraint agents_auth_tier_known,
  add constraint agents_auth_tier_known check (auth_tier in ('jwt_default', 'buyer_key', 'none')),
  add column tags text[] not null default '{}',
  add column payment_method text not null default 'credits',
  add column provider_since timestamptz,
  add column updated_at timestamptz;
update agents set updated_at = created_at;
alter table agents alter column updated_at set default now(), alter column updated_at set not null;
create index agents_newest on agents (status, created_at desc, id desc);
comment on column agents.provider_since is 'of an acf service: when its owner''s first one was registered, from which the commission''s months count';

-- A recorded call is invoiced outside of the gateway: its cost moved no credits.
alter table usage add column recorded boolean not null default false;
comment on column usage.cost is 'what the call costs its caller: charged by the transaction with its id, or recorded';

alter type batch_usage add attribute fee bigint;
alter type batch_usage add attribute recorded boolean;
alter type batch_usage add attribute due boolean;
alter type batch_transaction add attribute due boolean;
comment on column batch_usage.due is 'the call counts in a settlement of the agent''s owner';

-- Roll-ups by day (UTC): what pages and figures are made of.
create table usage_daily_by_agent (
  day         date not null,
  agent_id    uuid not null,
  calls       bigint not null,
  succeeded   bigint not null,
  errors      bigint not null,
  cost        bigint not null,
  latency_ms  bigint not null,
  primary key (agent_id, day)
);
create index usage_daily_by_agent_day on usage_daily_by_agent (day);
create table usage_daily_by_account (
  day         date not null,
  account_id  uuid not null,
  calls       bigint not null,
  succeeded   bigint not null,
  errors      bigint not null,
  cost        bigint not null,
  recorded    bigint not null,
  latency_ms  bigint not null,
  primary key (account_id, day)
);
create index usage_daily_by_account_day on usage_daily_by_account (day);
-- The same by ISO weeks, each by its Monday, and who called in a month, by its first day: of a year these are fewer rows than of each of its days.
create table usage_weekly_by_account (
  week        date not null,
  account_id  uuid not null,
  calls       bigint not null,
  cost        bigint not null,
  primary key (week, account_id)
) with (fillfactor = 80);
create table usage_months_by_account (
  month       date not null,
  account_id  uuid not null,
  primary key (month, account_id)
);
-- Who calls whom, since the first call. Whoever called an agent in the last days is found by `last_day`, which changes once a day.
create table usage_by_pair (
  account_id  uuid not null,
  agent_id    uuid not null,
  calls       bigint not null,
  cost        bigint not null,
  last_day    date not null,
  primary key (account_id, agent_id) include (last_day)
);
create index usage_by_pair_agent on usage_by_pair (agent_id, last_day);
comment on column usage_daily_by_agent.succeeded is 'answered below 400';
comment on column usage_daily_by_agent.errors is 'answered with 500 or above';
comment on column usage_daily_by_account.recorded is 'the part of cost that was recorded, not taken from credits';

alter table agent_totals
  add column succeeded bigint not null default 0,
  add column errors bigint not null default 0,
  add column latency_ms bigint not null default 0,
  add column first_at timestamptz,
  add column last_at timestamptz;

-- Rows of before the retention are in the hours alone, which do not say what succeeded: what was no error counts as that.
insert into usage_daily_by_agent
  select (hour at time zone 'utc')::date, agent_id, sum(calls), sum(calls - errors), sum(errors), sum(cost), sum(latency_ms) from usage_hourly_by_agent group by 1, 2;
update usage_daily_by_agent d set succeeded = r.succeeded
  from (select (created_at at time zone 'utc')::date as day, agent_id, count(*) as calls, count(*) filter (where status < 400) as succeeded from usage group by 1, 2) r
  where d.day = r.day and d.agent_id = r.agent_id and d.calls = r.calls;
insert into usage_daily_by_account
  select (hour at time zone 'utc')::date, account_id, sum(calls), sum(calls - errors), sum(errors), sum(cost), 0, 0 from usage_hourly_by_account group by 1, 2;
update usage_daily_by_account d set succeeded = r.succeeded, latency_ms = r.latency_ms
  from (select (created_at at time zone 'utc')::date as day, account_id, count(*) as calls, count(*) filter (where status < 400) as succeeded, sum(latency_ms) as latency_ms from usage group by 1, 2) r
  where d.day = r.day and d.account_id = r.account_id and d.calls = r.calls;
insert into usage_weekly_by_account
  select date_trunc('week', day::timestamp)::date, account_id, sum(calls), sum(cost) from usage_daily_by_account group by 1, 2;
insert into usage_months_by_account
  select distinct date_trunc('month', day::timestamp)::date, account_id from usage_daily_by_account;
insert into usage_by_pair
  select account_id, agent_id, count(*), sum(cost), (max(created_at) at time zone 'utc')::date from usage group by 1, 2;
update agent_totals t set succeeded = d.succeeded, errors = d.errors, latency_ms = d.latency_ms, first_at = d.first_day, last_at = d.last_day
  from (select agent_id, sum(succeeded) as succeeded, sum(errors) as errors, sum(latency_ms) as latency_ms, min(day) as first_day, max(day) as last_day from usage_daily_by_agent group by 1) d
  where t.agent_id = d.agent_id;
update agent_totals t set first_at = least(t.first_at, u.first_at), last_at = greatest(t.last_at, u.last_at)
  from (select agent_id, min(created_at) as first_at, max(created_at) as last_at from usage group by 1) u where t.agent_id = u.agent_id;
drop table usage_hourly_by_account;

-- Calls that are in `usage` and not in the roll-ups yet: a row each of what one commit wrote. Kept as it is, since it goes soon.
create table usage_pending (
  id     bigint generated always as identity primary key,
  calls  batch_usage[] not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
alter table usage_pending alter column calls set storage external;

-- One row a call of an acf service that was answered below 500, written with the call: what its provider is to be paid.
create table dues (
  usage_id       uuid primary key,
  agent_id       uuid not null,
  amount         bigint not null,
  fee            bigint not null,
  recorded       boolean not null,
  called_at      timestamptz not null,
  settlement_id  uuid,
  constraint dues_fee_within check (fee between 0 and amount)
);
create index dues_open on dues (agent_id, called_at) where settlement_id is null;
create index dues_settled on dues (settlement_id) where settlement_id is not null;
comment on column dues.fee is 'the platform''s commission, by the rate in force at the call';
comment on column dues.recorded is 'false: the provider has had its part in credits since the call';

create table settlements (
  id            uuid primary key,
  provider      text not null,
  account_id    uuid,
  period_start  timestamptz not null,
  period_end    timestamptz not null,
  total         bigint not null,
  fee           bigint not null,
  credited      bigint not null,
  calls         bigint not null,
  status        text not null default 'pending',
  payment_tx    text,
  created_at    timestamptz not null,
  paid_at       timestamptz,
  constraint settlements_period_once unique (provider, period_start, period_end),
  constraint settlements_period_forward check (period_start < period_end),
  constraint settlements_status_known check (status in ('pending', 'processing', 'completed', 'failed')),
  constraint settlements_sound check (fee between 0 and total and credited between 0 and total - fee),
  constraint settlements_paid check ((status = 'completed') = (paid_at is not null))
);
create index settlements_account on settlements (account_id, id desc);
comment on column settlements.provider is 'the name that the settlement was asked for; account_id is null when nobody had it';
comment on column settlements.credited is 'the part of the net amount that the provider has in credits: paying the settlement takes it from there';

create index transactions_deposited on transactions (account_id) where type in ('deposit', 'adjustment');

-- Deposits that wait for their payment.
create table deposits (
  id          uuid primary key,
  account_id  uuid not null references accounts (id),
  amount      bigint not null,
  status      text not null default 'pending',
  created_at  timestamptz not null,
  constraint deposits_amount_positive check (amount > 0),
  constraint deposits_status_known check (status in ('pending', 'completed'))
);
create index deposits_account on deposits (account_id, id desc);

-- Who an account says that its agents are. What they are worth shows in the usage of the account's services.
create table identities (
  id              uuid primary key,
  account_id      uuid not null references accounts (id),
  display_name    text not null,
  identity_type   text not null,
  capabilities    text[] not null,
  wallet_address  text,
  metadata        jsonb not null,
  verified        boolean not null default false,
  status          text not null default 'active',
  created_at      timestamptz not null,
  updated_at      timestamptz not null,
  constraint identities_type_known check (identity_type in ('api_key_only', 'kya_jwt', 'did_vc')),
  constraint identities_status_known check (status in ('active', 'suspended', 'deactivated'))
);
create index identities_account on identities (account_id, id desc);

-- The score that an account's subscribers were last told, in hundredths.
create table told_scores (
  account_id  uuid primary key references accounts (id),
  score       integer not null
);

create table teams (
  id           uuid primary key,
  account_id   uuid not null references accounts (id),
  name         text not null,
  description  text not null,
  config       jsonb not null,
  status       text not null default 'active',
  created_at   timestamptz not null,
  updated_at   timestamptz not null,
  constraint teams_status_known check (status in ('active', 'archived'))
);
create index teams_account on teams (account_id, id desc);
create table team_members (
  id         uuid primary key,
  team_id    uuid not null references teams (id),
  agent_id   text not null,
  role       text not null,
  skills     text[] not null,
  joined_at  timestamptz not null,
  constraint team_members_once unique (team_id, agent_id),
  constraint team_members_role_known check (role in ('leader', 'worker', 'reviewer', 'router'))
);
create table team_rules (
  id               uuid primary key,
  team_id          uuid not null references teams (id),
  name             text not null,
  keywords         text[] not null,
  target_agent_id  text not null,
  priority         integer not null,
  enabled          boolean not null default true,
  created_at       timestamptz not null
);
create index team_rules_team on team_rules (team_id, priority desc, id);
create table team_gates (
  id          uuid primary key,
  team_id     uuid not null references teams (id),
  gate_type   text not null,
  threshold   double precision not null,
  gate_order  integer not null,
  config      jsonb not null,
  enabled     boolean not null default true,
  created_at  timestamptz not null,
  constraint team_gates_type_known check (gate_type in ('quality_score', 'latency', 'error_rate', 'coverage', 'custom')),
  constraint team_gates_threshold_known check (threshold between 0 and 10)
);
create index team_gates_team on team_gates (team_id, gate_order, id);

-- Who wants to be told of what, and what is to be told: written with the event, sent by any node.
create table webhooks (
  id          uuid primary key,
  account_id  uuid not null references accounts (id),
  url         text not null,
  events      text[] not null,
  secret      bytea not null,
  created_at  timestamptz not null,
  busy_until  timestamptz,
  deleted_at  timestamptz
);
create index webhooks_account on webhooks (account_id, id desc);
create index webhooks_reputation on webhooks (account_id) where 'reputation.updated' = any(events) and deleted_at is null;
create index webhooks_deleted on webhooks (deleted_at) where deleted_at is not null;
comment on column webhooks.secret is 'sealed with SECRETS_KEY';
comment on column webhooks.busy_until is 'a node is sending one of its deliveries, and nobody else may before that time';
comment on column webhooks.deleted_at is 'gone for everybody; the row goes when none of its deliveries is left';
-- Without a foreign key: a commit that tells of something must not fail because a subscription goes at the same moment.
create table deliveries (
  id               uuid primary key,
  webhook_id       uuid not null,
  event            text not null,
  facts            jsonb not null,
  created_at       timestamptz not null,
  attempts         integer not null default 0,
  next_attempt_at  timestamptz not null,
  delivered_at     timestamptz,
  failed_at        timestamptz,
  last_status      integer,
  last_error       text,
  constraint deliveries_event_known check (event in ('service.called', 'payment.completed', 'reputation.updated', 'settlement.completed')),
  constraint deliveries_one_end check (delivered_at is null or failed_at is null)
);
create index deliveries_pending on deliveries (webhook_id, id) where delivered_at is null and failed_at is null;
create index deliveries_webhook on deliveries (webhook_id, id desc);
create index deliveries_over on deliveries (coalesce(delivered_at, failed_at)) where coalesce(delivered_at, failed_at) is not null;
comment on column deliveries.facts is 'ids of accounts, not their names: those are looked up when it is sent';
