"""What Redis does for rate limits, in Lua. The keys are described in gateway/sharing/scripts.py."""

from typing import Final

RATES_KEPT_S: Final = 86_400
"""How long after its last request the rates of a key are remembered, if nothing is owed."""
RATES_KEPT_MAX_S: Final = 3650 * 86_400
"""An answer can be longer than a minute's worth of tokens: what it owes is remembered until it is paid, for so long."""

RATES: Final = (
    f"""
local RATES_KEPT_S, RATES_KEPT_MAX_S = {RATES_KEPT_S}, {RATES_KEPT_MAX_S}
"""
    """
local function taken(q, what, per_min, now)
  local kept = call('HMGET', q, what .. 'k', what .. 't')
  if not kept[1] then return 0 end
  local passed = math.max(0, now - tonumber(kept[2]))
  return math.max(0, tonumber(kept[1]) - passed * tonumber(per_min) / 60000)
end
local function take(q, what, amount, now)
  call('HSET', q, what .. 'k', string.format('%.6f', math.max(0, amount)), what .. 't', text(now))
end
local function keep(q, taken, per_min)
  -- Until all that was taken is there again, and for a day at least. Never shorter than before.
  local seconds = per_min > 0 and math.ceil(taken * 60 / per_min) or 0
  seconds = math.max(RATES_KEPT_S, math.min(seconds, RATES_KEPT_MAX_S))
  if call('TTL', q) < seconds then call('EXPIRE', q, seconds) end
end
local function running(q, now)
  local sum, all = 0, call('HGETALL', q)
  for at = 1, #all, 2 do
    local name, boot = string.match(all[at], '^c:(.*)|([^|]*)$')
    if name then
      local m = call('HMGET', P .. 'm:' .. name, 'boot', 'alive')
      if m[1] == boot and now - tonumber(m[2] or '0') < COUNTED_ALIVE_MS then
        sum = sum + math.max(0, tonumber(all[at + 1]))
      else
        call('HDEL', q, all[at])
      end
    end
  end
  return sum
end
"""
)
ENTER: Final = """
-- epoch, name, boot, gen, tokens, then by account: id, requests and tokens per minute, requests at once ('' for none).
if is_fenced() then return {'fence'} end
local now, tokens, worst = now_ms(), tonumber(ARGV[5]), nil
local function over(kind, account, limit, wait)
  if not worst or (worst[5] >= 0 and (wait < 0 or wait > worst[5])) then worst = {'no', kind, account, limit, wait} end
end
for at = 6, #ARGV, 4 do
  local account, q = ARGV[at], P .. 'q:' .. ARGV[at]
  local most = ARGV[at + 3]
  if most ~= '' and running(q, now) >= tonumber(most) then
    over('concurrency', account, most, most == '0' and -1 or 1000)
  end
  for place, one in ipairs({{'r', 'requests', 1}, {'t', 'tokens', tokens}}) do
    local per_min = ARGV[at + place]
    if per_min ~= '' then
      local missing = taken(q, one[1], per_min, now) + one[3] - tonumber(per_min)
      if one[3] > tonumber(per_min) then
        over(one[2], account, per_min, -1)
      elseif missing > 0.000001 then
        over(one[2], account, per_min, math.ceil(missing * 60000 / tonumber(per_min)))
      end
    end
  end
end
if worst then return worst end
for at = 6, #ARGV, 4 do
  local q = P .. 'q:' .. ARGV[at]
  call('HINCRBY', q, 'c:' .. ARGV[2] .. '|' .. ARGV[3], 1)
  if ARGV[at + 1] ~= '' then take(q, 'r', taken(q, 'r', ARGV[at + 1], now) + 1, now) end
  if ARGV[at + 2] ~= '' then take(q, 't', taken(q, 't', ARGV[at + 2], now) + tokens, now) end
  keep(q, 0, 0)
end
return {'ok'}
"""
EXIT: Final = """
-- epoch, name, boot, gen, then by account: id, change of requests, change of tokens, tokens per minute ('' for none).
if is_fenced() then return {'fence'} end
local now = now_ms()
for at = 5, #ARGV, 4 do
  local q = P .. 'q:' .. ARGV[at]
  call('HINCRBY', q, 'c:' .. ARGV[2] .. '|' .. ARGV[3], ARGV[at + 1])
  local amount, per_min = 0, tonumber(ARGV[at + 3]) or 0
  if ARGV[at + 3] ~= '' then
    amount = taken(q, 't', per_min, now) + tonumber(ARGV[at + 2])
    take(q, 't', amount, now)
  end
  keep(q, amount, per_min)
end
return {'ok'}
"""
COUNT: Final = """
-- epoch, name, boot, gen, then by account: id, requests on their way.
if is_fenced() then return {'fence'} end
for at = 5, #ARGV, 2 do
  call('HSET', P .. 'q:' .. ARGV[at], 'c:' .. ARGV[2] .. '|' .. ARGV[3], ARGV[at + 1])
  keep(P .. 'q:' .. ARGV[at], 0, 0)
end
return {'ok'}
"""
PEEK: Final = """
-- by account: id, requests and tokens per minute. Gives what is taken of each, in thousandths.
local now, found = now_ms(), {}
for at = 1, #ARGV, 3 do
  for place, what in ipairs({'r', 't'}) do
    local per_min = ARGV[at + place]
    local amount = per_min ~= '' and taken(P .. 'q:' .. ARGV[at], what, per_min, now) or 0
    found[#found + 1] = text(math.ceil(amount * 1000))
  end
end
return found
"""
TRY: Final = """
-- name, most, window_ms. Gives how many ms to wait; 0: it is counted.
local key, most, window, now = P .. 'y:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), now_ms()
local first = call('LINDEX', key, -most)
local wait = first and tonumber(first) + window - now or 0
if wait > 0 then return wait end
call('RPUSH', key, text(now))
call('LTRIM', key, -most, -1)
call('PEXPIRE', key, window)
return 0
"""
