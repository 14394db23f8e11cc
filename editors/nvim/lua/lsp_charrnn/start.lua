-- Starting the server: where there is no vim.lsp.enable, and again after it has died.
local M = {}

local MOST, WITHIN = 3, 300 -- so many restarts in so many seconds; then something is wrong that they don't mend
local deaths = {} ---@type integer[] when the server died, in seconds

---@param buf integer
---@param config table
local function start(buf, config)
  if vim.api.nvim_buf_is_loaded(buf) then vim.lsp.start(config, { bufnr = buf }) end
end

--- Start the server for buffers of its languages. For 0.10.
function M.enable()
  local config = dofile(vim.api.nvim_get_runtime_file('lsp/lsp_charrnn.lua', false)[1])
  config.name = 'lsp_charrnn'
  local function start_for(buf)
    local root
    for _, marker in ipairs(config.root_markers) do root = root or vim.fs.root(buf, marker) end -- as vim.lsp.enable does
    if vim.bo[buf].buftype == '' then start(buf, vim.tbl_extend('force', config, { root_dir = root })) end
  end
  vim.api.nvim_create_autocmd('FileType', {
    group = vim.api.nvim_create_augroup('lsp_charrnn.start', {}),
    pattern = config.filetypes,
    callback = function(event) start_for(event.buf) end,
  })
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    if vim.list_contains(config.filetypes, vim.bo[buf].filetype) then start_for(buf) end
  end
end

--- The server has gone: start it again for its buffers, unless somebody has stopped it.
---@param code integer
---@param signal integer
---@param client_id integer
function M.exited(code, signal, client_id)
  local client = vim.lsp.get_client_by_id(client_id)
  if not client or (code == 0 and (signal == 0 or signal == 15)) then return end
  local buffers = vim.tbl_keys(client.attached_buffers) -- empty soon
  local function again()
    if vim.v.exiting ~= vim.NIL then return end
    local now = os.time()
    deaths = vim.tbl_filter(function(time) return now - time < WITHIN end, deaths)
    deaths[#deaths + 1] = now
    if #deaths > MOST then
      local said = 'lsp-charrnn has died %d times in five minutes, and is not started again: see :checkhealth lsp_charrnn'
      return vim.notify(said:format(#deaths), vim.log.levels.ERROR)
    end
    for _, buf in ipairs(buffers) do start(buf, client.config) end
  end
  vim.schedule(function() vim.defer_fn(again, 500) end) -- once Neovim has forgotten the client
end

return M
