-- Leases: money of an account that another node may spend without asking its owner.

-- What an account has is its own `available` and what is left of its leases.
create table leases (
  id          uuid primary key,
  account_id  uuid not null,
  subject_id  uuid not null,
  node_id     uuid not null,
  amount      bigint not null,
  spent       bigint not null default 0,
  is_open     boolean not null default true,
  granted_at  timestamptz not null,
  created_at  timestamptz not null default now(),
  constraint leases_amount_not_negative check (amount >= 0),
  constraint leases_never_overspent check (spent between 0 and amount)
) with (fillfactor = 50);
create index leases_account on leases (account_id);
comment on column leases.amount is 'granted less given back, and taken from the account''s available; changed under the account''s token';
comment on column leases.spent is 'by its node, without the account''s token; charged to the subject''s budgets when the lease is closed, which deletes the row';
comment on column leases.is_open is 'false after a batch of unknown outcome: nothing of it can be committed any more';
comment on column leases.granted_at is 'of the last grant: its money has room in the budget periods of that time, and later ones';

-- A lease that a batch names: what its account's owner changes of it, or what its node takes from it.
create type batch_lease as (
  id          uuid,
  account_id  uuid,
  taken       bigint,
  changed     bigint,
  is_new      boolean,
  subject_id  uuid,
  node_id     uuid,
  granted_at  timestamptz
);
comment on column batch_lease.taken is 'by its node; null in a change';
comment on column batch_lease.changed is 'by its owner, added to its amount';

alter table transactions add column lease_id uuid;
comment on column transactions.lease_id is 'of a charge by a node that does not own the account: what it was taken from';
alter type batch_transaction add attribute lease_id uuid;
