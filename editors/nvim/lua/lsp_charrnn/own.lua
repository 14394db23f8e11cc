-- Ghost text of our own, by extmarks: for Neovim 0.10 and 0.11, and where vim.g.lsp_charrnn_ghost is 'own'.
--
-- One suggestion is shown at most, in the current buffer. What is typed along it only shortens it; whatever else happens
-- to the text takes it away at once, and gives up the request that is under way.
local text = require('lsp_charrnn.text')
local api = vim.api
local M = {}

local INVOKED, AUTOMATIC = 1, 2
local namespace = api.nvim_create_namespace('lsp_charrnn')
local timer = assert(vim.uv.new_timer())

---@class lsp_charrnn.Shown
---@field client_id integer
---@field anchor lsp_charrnn.Anchor
---@field items lsp.InlineCompletionItem[]
---@field index integer
---@field asked boolean whether the items are all that there are
local shown ---@type lsp_charrnn.Shown?
local pending ---@type { client: vim.lsp.Client, id: integer }?

--- Call a client's method: 0.10 has `client.request(…)`, later ones have `client:request(…)`.
function M.call(client, method, ...)
  if vim.fn.has('nvim-0.11') == 1 then return client[method](client, ...) end
  return client[method](...)
end

local function in_insert_mode(buf)
  return api.nvim_get_current_buf() == buf and vim.startswith(api.nvim_get_mode().mode, 'i')
end

--- The text of the suggestion that is shown, as far as it isn't typed yet; nil where none fits.
local function rest()
  local found = shown and text.rest(shown.anchor, shown.items[shown.index].insertText)
  return found ~= '' and found or nil
end

local function cancel()
  timer:stop()
  local request = pending
  pending = nil
  if request then M.call(request.client, 'cancel_request', request.id) end
end

--- Take the suggestion away, and ask for no other until something is typed.
function M.dismiss()
  cancel()
  if shown and api.nvim_buf_is_valid(shown.anchor.buf) then
    api.nvim_buf_clear_namespace(shown.anchor.buf, namespace, 0, -1)
  end
  shown = nil
end

local function draw()
  local found = rest()
  if found then text.draw(namespace, found) else M.dismiss() end
end

--- Ask the server about the text and the cursor as they are now. An answer that comes when they aren't any more is dropped.
local function ask(buf, kind, on_items)
  cancel()
  local client = vim.lsp.get_clients({ bufnr = buf, name = 'lsp_charrnn' })[1]
  if not client or not in_insert_mode(buf) then return end
  local cursor, tick = api.nvim_win_get_cursor(0), api.nvim_buf_get_changedtick(buf)
  local anchor = text.anchor(buf, cursor[1] - 1, cursor[2])
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = kind }
  local id
  local function on_answer(err, result)
    if not pending or pending.id ~= id then return end -- another has been sent since
    pending = nil
    if err or not result or not in_insert_mode(buf) or api.nvim_buf_get_changedtick(buf) ~= tick then return end
    if not vim.deep_equal(api.nvim_win_get_cursor(0), cursor) then return end
    -- What our server sends to Neovim is always inserted at the cursor, and replaces nothing.
    local items = vim.tbl_filter(function(item)
      local range = item.range
      return vim.deep_equal(range.start, params.position) and vim.deep_equal(range['end'], params.position)
    end, result.items or result)
    if #items == 0 then return M.dismiss() end
    shown = { client_id = client.id, anchor = anchor, items = items, index = 1, asked = kind == INVOKED }
    if on_items then on_items() end
    draw()
  end
  local sent
  sent, id = M.call(client, 'request', 'textDocument/inlineCompletion', params, on_answer, buf)
  if sent then pending = { client = client, id = id } end
end

local function step(by)
  local from = shown.index
  repeat
    shown.index = (shown.index - 1 + by) % #shown.items + 1
  until rest() or shown.index == from
end

--- Show another suggestion; where none is shown, the first.
---@param by 1|-1
function M.cycle(by)
  if shown and shown.asked and rest() then
    step(by)
    return draw()
  end
  local another = rest() ~= nil
  ask(api.nvim_get_current_buf(), INVOKED, function() if another then step(by) end end)
end

--- What is shown, to be inserted at the cursor.
---@return { client_id: integer, text: string, command: lsp.Command? }?
function M.current()
  local found = rest()
  return found and { client_id = shown.client_id, text = found, command = shown.items[shown.index].command } or nil
end

--- Bring what is shown in line with the text, and ask for what comes next where nothing is left of it.
function M.update()
  local buf = api.nvim_get_current_buf()
  if rest() then return draw() end
  M.dismiss()
  local debounce = vim.g.lsp_charrnn_debounce or 50
  timer:start(debounce, 0, vim.schedule_wrap(function() ask(buf, AUTOMATIC) end))
end

---@param buf integer
function M.attach(buf)
  local group = api.nvim_create_augroup('lsp_charrnn.own.' .. buf, { clear = true })
  local function on(events, callback) api.nvim_create_autocmd(events, { group = group, buffer = buf, callback = callback }) end
  on({ 'InsertEnter', 'TextChangedI', 'TextChangedP', 'CursorMovedI' }, M.update)
  on({ 'InsertLeave', 'BufLeave', 'LspDetach' }, M.dismiss)
end

return M
