#!lua flags=allow-oom
-- set_rules: replace what a queue lets its workers claim.
--
-- KEYS: meta ready ring groups opens
-- ARGV: now caller number channel rules expected
--   channel   on which it is announced that more may be claimed
--   rules     their stored form (see meta.lua); "" for none
--   expected  "" if these may be any, else "=" .. the rules that the queue must have now
-- Returns: 1, or 0 if it has others
-- Invariants: no claim that is made after this one sees the rules of before.

-- include: base
local meta, ready, ring, groups, opens = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local caller, number = ARGV[2], ARGV[3]
local channel, rules, expected = ARGV[4], ARGV[5], ARGV[6]
-- include: meta
-- include: seen
-- include: calls
-- include: record
grouped = true
local staged, prio, lines -- not looked at
-- include: ready
-- include: groups

if ahead == 0 then return sub(noted, 19) == '1' and 1 or 0 end

local present = counters[6] or ''
local replaced = expected == '' or sub(expected, 2) == present
call('HDEL', meta, replaced and 'rules' or '') -- a write that needs no memory, before those that do
if replaced and rules ~= '' then
  call('HSET', meta, 'rules', rules)
end
if replaced and rules ~= present then
  -- Never an error: who waits looks by itself after a while. 123: "{", shard channels have the queue's tag.
  redis.pcall(byte(channel) == 123 and 'SPUBLISH' or 'PUBLISH', channel, '')
  -- Groups that were at their limit are asked again.
  for _, name in ipairs(call('ZRANGEBYSCORE', opens, 0, 'inf')) do group_at(name).parked = false end
  save_groups(true)
end
remember(replaced and '1' or '0')
return replaced and 1 or 0
