-- Routes by headers on a topic exchange: the routing key begins with the values of chosen headers. With the headers below,
-- `order.created` with `x-region: eu` and `x-class: gold` becomes `eu.gold.order.created`, so that a queue bound with
-- `eu.*.order.#` gets the orders of one region, and one bound with `*.gold.#` everything of a class.
--
-- A header that is missing, or is no single word, counts as `none`. Publishers change nothing.

local HEADERS = { "x-region", "x-class" }

-- A dot in a value would shift the words behind it; a star or hash means something to bindings.
local WORD = "^[%w_-]+$"

return {
	on_publish = function(msg)
		local words = {}
		for _, name in HEADERS do
			local value = msg.headers[name]
			local text = if value == nil then "" else tostring(value)
			table.insert(words, if string.match(text, WORD) then text else "none")
		end
		table.insert(words, msg.routing_key)
		msg.routing_key = table.concat(words, ".")
	end,
}
