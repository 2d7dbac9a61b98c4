-- Bars that the platform's table did not take, so that it can be told how many of whose wait for its owner.
alter table assetbatch.bar_absences
  drop constraint bar_absences_reason_check,
  add constraint bar_absences_reason_check
    check (reason in ('closed', 'nothing', 'failed', 'refused', 'not_entitled'));
create index bar_absences_refused on assetbatch.bar_absences (symbol) where reason = 'refused';
comment on table assetbatch.bar_absences is
  'closed: the market rested; nothing: the vendor had none; failed: what it sent was no bar, asked again after a day; refused: the table did not take it, likewise; not_entitled: not with this plan and key';
comment on column assetbatch.bar_absences.told is
  'not_entitled: plan and fingerprint of the key that were told so; refused: what PostgreSQL said';
