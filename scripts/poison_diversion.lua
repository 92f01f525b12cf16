-- Takes messages out of circulation that consumers cannot handle: what has been handed out TRIES times without an ack goes to
-- the dead letters of its queue, and what publishers try again for ever goes to `dead_letter_exchange`.
--
-- At a queue (needs a `dead_letter` there): deliveries are counted by message id in broker.shared, because a message itself
-- cannot be written to. Messages without an id pass. Unlike `delivery_limit` this counts also what comes back when connections die, and works the same for
-- each type of queue.
--
-- At an exchange (needs `dead_letter_exchange` in the declaration of the hook): a message that carries more than RETRIES in the
-- header `x-retries`, or has died that often, is not routed any more.

local TRIES = 5
local RETRIES = 10
-- A count is forgotten so many seconds after the first delivery.
local REMEMBERED = 3600

-- How often it has died, in all queues together.
local function deaths(msg)
	local count = 0
	local entries = msg.headers["x-death"]
	if type(entries) == "table" then
		for _, entry in entries do
			count += type(entry) == "table" and tonumber(entry.count) or 0
		end
	end
	return count
end

return {
	on_deliver = function(msg)
		local id = msg.message_id
		if not id then
			return
		end
		-- A queue's name has up to 255 bytes, an id as well, and a key no more: the end of an id is what differs.
		local key = string.sub(`{msg.queue}/{id}`, -255)
		if not msg.redelivered then
			return
		end
		local tries = 1 + broker.shared.add(key, 1, REMEMBERED)
		if tries > TRIES then
			broker.shared.set(key, nil)
			broker.dead_letter(`handed out {TRIES} times without success`)
		end
	end,

	on_publish = function(msg)
		local retries = math.max(tonumber(msg.headers["x-retries"]) or 0, deaths(msg))
		if retries > RETRIES then
			broker.dead_letter(`tried {retries} times`)
		end
	end,
}
