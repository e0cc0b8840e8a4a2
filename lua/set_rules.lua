#!lua flags=allow-oom
-- set_rules: replace what a queue lets its workers claim.
--
-- KEYS: meta
-- ARGV: now caller number channel rules expected
--   channel   on which it is announced that more may be claimed
--   rules     their stored form (see meta.lua); "" for none
--   expected  "" if these may be any, else "=" .. the rules that the queue must have now
-- Returns: 1, or 0 if it has others
-- Invariants: no claim that is made after this one sees the rules of before.

-- include: base
local meta = KEYS[1]
local caller, number = ARGV[2], ARGV[3]
local channel, rules, expected = ARGV[4], ARGV[5], ARGV[6]
-- include: meta
-- include: seen
-- include: calls

if ahead == 0 then return sub(noted, 19) == '1' and 1 or 0 end

local present = counters[6] or ''
local replaced = expected == '' or sub(expected, 2) == present
call('HDEL', meta, replaced and 'rules' or '') -- a write that needs no memory, before those that do
if replaced and rules ~= '' then
  call('HSET', meta, 'rules', rules)
elseif replaced and present ~= '' then
  -- Never an error: who waits looks by itself after a while. 123: "{", shard channels have the queue's tag.
  redis.pcall(byte(channel) == 123 and 'SPUBLISH' or 'PUBLISH', channel, '')
end
remember(replaced and '1' or '0')
return replaced and 1 or 0
