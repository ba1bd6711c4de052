-- Rate windows of accounts that moved from one node to another.

-- Written by the node that lets go of an account, read by the next that activates it; of no use after a minute. A server that crashes forgets them.
create unlogged table windows (
  subject_id  uuid primary key,
  account_id  uuid not null,
  calls       jsonb not null,
  handed_at   timestamptz not null default now()
);
create index windows_account on windows (account_id);
comment on column windows.calls is 'pairs of a second (since the epoch, by the clock of the node that wrote it) and the calls admitted in it';
