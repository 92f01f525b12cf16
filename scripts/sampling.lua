-- Lets a share of the messages through and drops the others, for an exchange that feeds debugging or statistics.
--
-- What belongs together is kept together: the share is taken of correlation ids (or message ids), not of messages, so a trace
-- is there whole or not at all. Messages with neither are counted. What passes says in `x-sample-percent` how much it stands
-- for. Messages with the header `x-keep` always pass. Publishers hear that all is well either way.

local PERCENT = 10

-- FNV-1a over the last bytes, which are what differs between ids.
local function hash(text)
	local value = 2166136261
	for index = math.max(1, #text - 31), #text do
		value = bit32.bxor(value, string.byte(text, index))
		-- The product with 16777619, whose lower 32 bits a number can hold piece by piece.
		value = bit32.band(value * 403 + bit32.lshift(value, 24), 0xFFFFFFFF)
	end
	return value
end

local count = 0

return {
	on_publish = function(msg)
		if msg.headers["x-keep"] then
			return
		end
		local id = msg.correlation_id or msg.message_id
		local place
		if id then
			place = hash(id) % 100
		else
			count += 1
			place = count % 100
		end
		if place >= PERCENT then
			return false
		end
		msg.headers["x-sample-percent"] = PERCENT
	end,
}
