-- Taking a waiting job out of its indexes. Needs: base, meta, record, ready, groups, search, KEYS ready prio
-- scheduled failing expiring.

-- Where the next job is looked for first: those of one call often stand behind each other.
local next_place = 0

-- False if the job does not wait. Call unstage() first.
local function leave_index(job, id)
  if job.state == 'S' then
    call('ZREM', scheduled, seq_of(job) .. id)
  elseif job.state == 'R' then
    call('ZREM', failing, seq_of(job) .. id)
  elseif job.state ~= 'Q' then
    return false
  elseif grouped and group_of(job.extras) then
    leave_line(job, id, group_of(job.extras))
  elseif priority_of(job) ~= 0 then
    call('ZREM', prio, spack('>I7', job.mark) .. id)
  else
    local wanted = spack('>I7', job.mark) .. id
    local index, found = next_place, call('LINDEX', ready, next_place)
    if found ~= wanted then
      index, found = lower_bound(job.mark)
    end
    if found == wanted then
      call('LSET', ready, index, '')
      blanks = blanks + 1
      next_place = index + 1
    end
  end
  if counters[8] then call('ZREM', expiring, seq_of(job) .. id) end
  return true
end

-- Remove the blanks at the front, where a queue that is emptied has all of them, and all when they have become most
-- of the list.
local function drop_blanks()
  local before = blanks
  while blanks > 0 do
    local window = call('LRANGE', ready, 0, 63)
    local leading = 0
    while window[leading + 1] == '' do leading = leading + 1 end
    if leading == 0 then break end
    call('LPOP', ready, string.format('%d', leading))
    blanks = blanks - leading
  end
  if blanks * 2 > call('LLEN', ready) then
    call('LREM', ready, 0, '')
    blanks = 0
  end
  if blanks < before and call('ZCARD', prio) > 0 then wake() end
end
