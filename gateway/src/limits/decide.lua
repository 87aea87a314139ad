-- Decides many questions in one call. KEYS: for each question its address, then its token and its
-- keeping where it has one; ARGV[1]: the three limits of each question, four bytes each, 0 where it has
-- no such part. Answers two numbers a question, or nothing at all if every question is answered "1":
--   0 pass and keep, 1 pass, 2 over the address's limit, 3 over the token's; and microseconds to wait.
-- All of a question is counted or nothing. Up to EXACT a limit is a list of the times of its last
-- passes: there is room unless the limit-th most recent one is inside the window. Above, a hash of
-- one-second buckets, summed. The clock is this server's, one for all gateways.
local WINDOW, EXACT = 60, 1000
local call = redis.call
local time = call('TIME')
local second, micro = tonumber(time[1]), tonumber(time[2])
local now = second * 1000000 + micro
local stamp = string.format('%.0f', now)
local expiry = tostring((WINDOW + 1) * 1000)
local sums = {}

local function sum_of(key)
  local known = sums[key]
  if known then return known end
  known = { passes = 0, new = 0, oldest = second }
  local all, gone = call('HGETALL', key), {}
  for i = 1, #all, 2 do
    local at = tonumber(all[i])
    if at < second - WINDOW or at > second then
      gone[#gone + 1] = all[i]
    else
      known.passes = known.passes + tonumber(all[i + 1])
      if at < known.oldest then known.oldest = at end
    end
  end
  -- Few at a time: Lua's stack bounds what unpack may give.
  for i = 1, #gone, 1000 do
    call('HDEL', key, unpack(gone, i, math.min(i + 999, #gone)))
  end
  sums[key] = known
  return known
end

-- Counts a pass if there is room (0), else counts nothing and says how long to wait. Counting first
-- costs a list with room, which nearly every one is, one command instead of two.
local function enter(key, limit)
  if limit > EXACT then
    local sum = sum_of(key)
    if sum.passes + sum.new >= limit then return (sum.oldest + WINDOW + 1) * 1000000 - now end
    sum.new = sum.new + 1
    return 0
  end
  local passes = call('LPUSH', key, stamp)
  if passes > limit then
    local at = tonumber(call('LINDEX', key, limit))
    if at > now then
      -- This server's clock was set back: what it said before means nothing.
      call('DEL', key)
      call('LPUSH', key, stamp)
    elseif at + WINDOW * 1000000 + 1 > now then
      call('LPOP', key)
      return at + WINDOW * 1000000 + 1 - now
    else
      call('LTRIM', key, 0, limit - 1)
    end
  end
  call('PEXPIRE', key, expiry)
  return 0
end

-- Takes back what `enter` has just counted.
local function leave(key, limit)
  if limit > EXACT then
    sums[key].new = sums[key].new - 1
  else
    call('LPOP', key)
  end
end

local answers, plain, at, limits = {}, true, 1, ARGV[1]
for i = 1, #limits, 12 do
  local address, token, keeping = struct.unpack('<I4I4I4', limits, i)
  local key, verdict = at, 1
  at = at + 1
  local pause = enter(KEYS[key], address)
  if pause > 0 then verdict = 2 end
  if token > 0 then
    if verdict == 1 then
      pause = enter(KEYS[at], token)
      if pause > 0 then
        leave(KEYS[key], address)
        verdict = 3
      end
    end
    at = at + 1
  end
  if keeping > 0 then
    if verdict == 1 and enter(KEYS[at], keeping) == 0 then verdict = 0 end
    at = at + 1
  end
  plain = plain and verdict == 1
  answers[#answers + 1] = verdict
  answers[#answers + 1] = pause
end

for key, sum in pairs(sums) do
  if sum.new > 0 then
    call('HINCRBY', key, second, sum.new)
    call('PEXPIRE', key, (WINDOW + 2) * 1000)
  end
end
if plain then return {} end
return answers
